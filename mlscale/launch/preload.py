"""What the fork server imports before it forks a rank. It must compute nothing: an OpenMP pool does not survive a fork."""

import mlscale.train.assemble  # noqa: F401
