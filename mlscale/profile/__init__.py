"""Find the bottleneck of a training run, and a measured remedy: two timers and a loader that costs nothing."""
