"""Triton Inference Server: a model repository of a servable, which the server loads unchanged."""
