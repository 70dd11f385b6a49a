"""Worker processes end with the process that has started them, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.data.workers.sample_executor import _has_guard
from mlscale.data.workers.serve_requests import SharedScratch
from tests.unit.data.conftest import write_shards
from tests.unit.data.workers.test_executor import is_gone, list_pids, wait_until

_SCRIPT = """
    import sys
    from pathlib import Path

    from mlscale.data import Loader, TarBackend
    from tests.unit.data.workers.transforms import Noise


    def main():
        augment = Noise(Path(sys.argv[2]), 0.01)
        data = TarBackend(sys.argv[1], sys.argv[1], batch_size=8, workers=2, augment=augment, executor="process")
        loader = Loader(data)
        while True:
            for batch in loader:
                print("batch", flush=True)

"""
_GUARDED = '\n    if __name__ == "__main__":\n        main()\n'


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGTERM))],
)
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, which a terminal sends to the whole group, and signals to the main process alone."""
    write_shards(tmp_path / "t", 40)
    (pids := tmp_path / "pids").mkdir()
    (script := tmp_path / "loop.py").write_text(textwrap.dedent(_SCRIPT + _GUARDED))
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "t", pids],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        start_new_session=True,
    )
    assert process.stdout is not None
    for _ in range(6):
        assert process.stdout.readline() == b"batch\n"
    assert len(list_pids(pids)) == 2
    # Memory without a name is gone with its processes, however they end.
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in (process.pid, *list_pids(pids))]
    assert all("memfd:mlscale-samples (deleted)" in mapped and "/dev/shm/" not in mapped for mapped in maps)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.stdout.close()
    assert process.wait(30) in (-number, 1)
    assert wait_until(lambda: all(map(is_gone, list_pids(pids))))
    # The fork server ends as well, as nothing of its group is left.
    assert wait_until(lambda: not _has_group(process.pid))


def test_a_stop_signal_to_the_group_ends_no_worker_of_a_process_that_handles_it(tmp_path: Path) -> None:
    """As `timeout` and systemd send it: the training takes its last step with what they make, and saves."""
    write_shards(tmp_path / "t", 40)
    (pids := tmp_path / "pids").mkdir()
    handled = "signal.signal(number, lambda *_: None)"
    setup = f"\n    import signal\n    for number in (1, 2, 10, 15):\n        {handled}\n"
    (script := tmp_path / "loop.py").write_text(textwrap.dedent(_SCRIPT + setup + _GUARDED))
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "t", pids],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"batch\n"
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
            os.killpg(process.pid, number)
        for _ in range(40):
            assert process.stdout.readline() == b"batch\n"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _has_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_script_that_would_run_again_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "t", 40)
    (pids := tmp_path / "pids").mkdir()
    (script := tmp_path / "loop.py").write_text(textwrap.dedent(_SCRIPT + "\n    main()\n"))
    done = subprocess.run(
        [sys.executable, script, tmp_path / "t", pids],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        timeout=120,
    )
    assert done.returncode == 1
    assert f"each new process would run {script} again" in done.stderr
    assert "call it under if __name__ == '__main__':" in done.stderr
    assert not list_pids(pids)


@pytest.mark.parametrize(
    ("source", "guarded"),
    [
        ("import a\nif __name__ == '__main__':\n    a.b()\n", True),
        ("if '__main__' == __name__ and True:\n    b()\n", True),
        ("def f():\n    if __name__ == '__main__':\n        pass\nf()\n", False),
        ("print(1)\n", False),
    ],
)
def test_guards(tmp_path: Path, source: str, guarded: bool) -> None:
    (path := tmp_path / f"{abs(hash(source))}.py").write_text(source)
    assert _has_guard(path) is guarded


def test_memory_grows_on_both_sides() -> None:
    one = SharedScratch()
    other = SharedScratch(os.dup(one._descriptor))
    for count in (10, 3 << 20, 5):
        arrays: list[Any] = [np.arange(count, dtype=np.int32), np.ones((2, count), np.uint8)]
        places = one.write_arrays(arrays)
        assert all(np.array_equal(a, b) for a, b in zip(arrays, other.view_arrays(places), strict=True))
        other.mark_row(count)
        assert one.row == count
    one.close()
    other.close()
