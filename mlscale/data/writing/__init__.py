"""Write images from any source as shards: tar or TFRecord, shuffled, of one size, and begun again after a kill."""
