"""For all tests: OpenMP threads that do not spin, said before anything imports torch."""

from mlscale.launch.threads import wait_passively

wait_passively()
