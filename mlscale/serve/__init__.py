"""A servable behind HTTP: engine, batching, protocols, hot swap. Runs without torch."""
