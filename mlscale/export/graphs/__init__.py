"""An encoder as ONNX nodes in front of the model's own: tables and texts; decoding and resizing stay outside."""
