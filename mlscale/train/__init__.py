"""Training: strategies, callbacks, loggers, checkpoints, initial weights."""
