"""Encoders: from a raw sample (a row of a table, the bytes of an image, a text) to the tensors that a model takes.

An encoder is fitted on the training data and written as data, never as code; training, `predict` and a server share
this one definition, which needs numpy alone. Each kind has a module of its own; `stored_encoder` reads any of them.
"""
