"""Set how CPU threads wait for each other. Call it before torch is imported, for OpenMP reads the setting once."""

import os


def wait_passively() -> None:
    """Let OpenMP threads wait for some 20 µs and then sleep, unless the user has set OMP_WAIT_POLICY.

    They spin by default: on a machine with more work than cores each spinning thread keeps another one from working.
    A small network trained at 45 samples/s that way, and at more than 1,000 with sleeping threads.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        # To wake a thread takes longer than many an operation of a small network does.
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
