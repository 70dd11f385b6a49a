"""From a trained model to a servable: ONNX, proof that it computes the same, and what monitoring compares with.

What serves imports `servable` and `reference`: numpy and onnxruntime, no torch.
"""
