"""The store of predictions and labels: what a server writes, and what monitoring and retraining read."""
