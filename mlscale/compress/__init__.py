"""Smaller and faster models, kept only when measured to be faster and accurate enough."""
