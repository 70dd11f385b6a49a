"""What computes a servable's graph: ONNX Runtime, or another runtime with the same interface."""
