"""For all tests: threads that do not spin, before anything imports torch; tests share the cores with their own ranks."""

from mlscale.launch.threads import wait_passively

wait_passively()
