"""Answers requests with a servable: HTTP, the Open Inference Protocol, batches, hot swap, events. Needs no torch."""
