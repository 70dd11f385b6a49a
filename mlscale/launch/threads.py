"""How CPU threads wait for each other. Must be said before torch is imported, for OpenMP reads it once."""

import os


def wait_passively() -> None:
    """Let OpenMP threads sleep while they wait, unless the user has said otherwise.

    They spin by default: on a machine with more work than cores each spinning thread keeps another one from working.
    A small network trained at 45 samples/s that way, and at 1,000 and more with threads that sleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
