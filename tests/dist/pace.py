"""How long a machine that others keep busy may take for what has a limit in seconds."""

import time
from pathlib import Path

_CPU_SECONDS = 0.3


def allow_seconds(seconds: float) -> float:
    """Return the limit for what takes at most `seconds` where the cores are free: longer by as much as this process
    waits for a core now.
    """
    begin, cpu = time.monotonic(), time.process_time()
    while time.process_time() - cpu < _CPU_SECONDS:
        pass
    return seconds * max(1.0, (time.monotonic() - begin) / _CPU_SECONDS)


def wait_for_mark(mark: Path, seconds: float = 400.0) -> float:
    """Wait until a callback has made its mark; return the time of it."""
    end = time.monotonic() + seconds
    while not (mark.exists() and mark.read_text()):
        assert time.monotonic() < end, f"no {mark.name} within {seconds:g} s"
        time.sleep(0.05)
    return mark.stat().st_mtime
