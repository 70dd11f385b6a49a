"""How long a machine that others keep busy may take for what has a limit in seconds."""

import threading
import time
from pathlib import Path

_CPU_SECONDS = 0.3
_SAMPLE_SECONDS, _BETWEEN = 0.03, 0.2


class Pace:
    """How long this process waits for a core from now on, sampled until a limit is asked for."""

    def __init__(self) -> None:
        self._ratios: list[float] = []
        self._is_asked = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def allow_seconds(self, seconds: float) -> float:
        """Return the limit for what takes at most `seconds` where the cores are free."""
        self._is_asked.set()
        self._sampler.join()
        return seconds * max(1.0, sum(self._ratios) / len(self._ratios))

    def _sample(self) -> None:
        while not self._is_asked.wait(_BETWEEN) or not self._ratios:
            begin, cpu = time.monotonic(), time.thread_time()
            while time.thread_time() - cpu < _SAMPLE_SECONDS:
                pass
            self._ratios.append((time.monotonic() - begin) / _SAMPLE_SECONDS)


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
