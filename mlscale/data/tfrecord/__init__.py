"""TFRecord files without TensorFlow: an offset index of their records and features, read and written."""
