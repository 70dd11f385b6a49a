"""The progress bar, on a terminal and in a file."""

import fcntl
import io
import os
import pty
import select
import struct
import sys
import termios
from typing import Any, TextIO

import pytest

from mlscale.train.callbacks import Progress
from tests.unit.fitting import batches, classifier, fit, trainer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: TextIO, data: list[Any] | None = None, **arguments: Any) -> str:
    run = trainer(callbacks=[Progress(refresh=0, stream=stream)], enable_progress_bar=True, **arguments)
    fit(run, classifier(), data or batches(4))
    return stream.getvalue() if isinstance(stream, io.StringIO) else ""


def test_a_file_gets_one_plain_line_per_epoch() -> None:
    lines = shown(io.StringIO(), max_epochs=2).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for part in ("step 8", "loss", "val/accuracy", "samples/s"):
        assert part in lines[1]
    assert "\r" not in lines[1]


def test_a_terminal_gets_a_line_that_moves() -> None:
    text = shown(Terminal())
    assert text.count("\n") <= 1
    for part in ("epoch 1/1", "4/4", "loss", "samples/s", "validating"):
        assert part in text


def test_a_terminal_keeps_a_line_of_each_epoch_and_shows_the_time_left_of_the_run() -> None:
    text = shown(Terminal(), max_epochs=2)
    lines = [line.rpartition("\r")[2] for line in text.split("\n")]
    assert [line.split("  ")[0] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert all("val/accuracy" in line and "val/loss" in line and "|" not in line for line in lines[:2])
    # 4 of 8 batches are left after the first epoch's last one, and none after the last.
    bars = [part for part in text.replace("\n", "\r").split("\r") if "4/4" in part]
    assert ", 0 ms left" not in bars[0]
    assert ", 0 ms left" in bars[-1]


def test_a_run_without_an_end_has_no_time_left() -> None:
    assert " left" not in shown(Terminal(), max_epochs=-1, max_steps=-1, max_time={"seconds": 0})


def test_a_terminal_that_does_not_know_its_width_gets_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `docker run -t` and `script` make them: zero columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    with open(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)  # whose size tqdm asks for, of no other stream's
        shown(stream)
        monkeypatch.undo()
        text = ""
        while "4/4" not in text and select.select([ours], [], [], 5)[0]:  # a terminal hands on what it has, bit by bit
            text += os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "4/4" in text
    assert max(map(len, text.split("\r"))) <= 101


def test_other_ranks_are_silent() -> None:
    stream, progress = Terminal(), Progress(refresh=0)
    progress._stream = stream
    progress.disable()
    fit(trainer(callbacks=[progress], enable_progress_bar=True), classifier(), batches(2))
    assert stream.getvalue() == ""


def test_accumulation_does_not_change_the_loss_shown() -> None:
    def loss(text: str) -> str:
        return text.rsplit("loss ", 1)[1].split(",")[0]

    data = batches(1)
    assert loss(shown(io.StringIO(), data)) == loss(shown(io.StringIO(), data * 2, accumulate_grad_batches=2))
