"""Random changes of images and their labels, the same for a sample on any number of ranks."""
