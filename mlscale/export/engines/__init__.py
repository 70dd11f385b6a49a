"""Engines, which compute the graph of a servable: ONNX Runtime, or another runtime with the same interface."""
