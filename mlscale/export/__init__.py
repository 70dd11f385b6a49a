"""Export a trained model to a servable: ONNX, the comparison with the trained model, the reference for monitoring.

Serving imports `servable` and `reference_profile` alone: numpy and onnxruntime, no torch.
"""
