"""Engines of a servable's graph: ONNX Runtime on the CPU or another execution provider, and OpenVINO."""
