"""What the fork server imports before it forks ranks. It computes nothing: an OpenMP pool does not survive a fork."""

import mlscale.train.assemble  # noqa: F401
