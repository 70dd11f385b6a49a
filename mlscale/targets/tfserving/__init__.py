"""The export target TensorFlow Serving: a SavedModel of the servable's graph, made without torch."""
