"""Export a trained model to a servable: ONNX, the comparison with the trained model, the reference for monitoring.

Serving imports `servable` alone: numpy and onnxruntime, no torch.
"""
