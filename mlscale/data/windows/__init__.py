"""Windows of retraining cycles, mixed with the data that a model was first trained on: `data.windows`."""
