"""A command that stays: it is waited for, told to end, and never outlives its block."""

import os
import signal
import time
from pathlib import Path

import pytest

from mlscale import commands
from mlscale.errors import Exit, MLScaleError
from tests.unit.loadtest.servers import serving


def test_it_ends_with_its_block(tmp_path: Path) -> None:
    with serving() as server, commands.start_in_background("loadtest", [server.url, "seconds=600"], tmp_path) as load:
        assert load.wait_until_ready(lambda: server.asked or None, 60, "asking")
        assert load.process.poll() is None
    assert load.process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.killpg(load.process.pid, 0)


def test_it_ends_when_something_is_raised(tmp_path: Path) -> None:
    def fail() -> None:
        with commands.start_in_background("loadtest", ["http://127.0.0.1:9"], tmp_path) as load:
            seen.append(load)
            raise KeyboardInterrupt

    seen: list[object] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert seen[0].process.returncode is not None  # type: ignore[attr-defined]


def test_one_that_ends_by_itself_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with (
        commands.start_in_background("loadtest", ["http://127.0.0.1:9"], tmp_path) as load,
        pytest.raises(MLScaleError, match="mlscale loadtest ended with exit code 5") as caught,
    ):
        load.wait_until_ready(lambda: None, 60, "asking")
    assert caught.value.why.startswith("error: no server answers at http://127.0.0.1:9 | where: ")
    assert caught.value.exit == Exit.ENVIRONMENT
    assert caught.value.where == str(tmp_path / "loadtest.log")


def test_waiting_has_an_end(tmp_path: Path) -> None:
    with serving() as server, commands.start_in_background("loadtest", [server.url, "seconds=600"], tmp_path) as load:
        began = time.monotonic()
        with pytest.raises(MLScaleError, match=r"a miracle took longer than 0\.1 s"):
            load.wait_until_ready(lambda: None, 0.1, "a miracle")
        assert time.monotonic() - began < 5
        assert load.stop_command(signal.SIGKILL) == -signal.SIGKILL
