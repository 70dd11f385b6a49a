"""A rank tells what ended it."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlscale import commands
from mlscale.cli import main

ROOM = 500 << 10  # bytes of one file: enough for a log, too few for a checkpoint


@pytest.fixture
def prepared(folder: Path) -> None:
    """Data that needs no room any more."""
    commands.run_command("prepare", ["data=digits"])


@pytest.fixture
def no_room(prepared: None) -> Iterator[None]:
    """As though the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("no_room")
def test_a_run_that_could_save_nothing_is_reported_as_the_disk_s(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["+recipe=resnet", "debug=fast", "snapshot=false"])
    printed = capsys.readouterr().err
    assert code == 5, printed
    assert "warning   disk full: " in printed
    assert "error: the final state of the run could not be saved: 2 saves failed" in printed
    assert "why:   File too large" in printed
    assert "fix:   mlscale runs resume last, once there is space: it starts over" in printed
