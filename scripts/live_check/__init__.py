"""What could not be tried where mlscale is developed, tried on the machine of a user: servers, GPUs, trackers."""
