"""Serves a servable over HTTP: the Open Inference Protocol, batches, hot swap, events. Needs no torch."""
