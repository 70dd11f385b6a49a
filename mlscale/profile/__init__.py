"""What bounds a training run, and the remedy, measured: two timers and a loader that costs nothing."""
