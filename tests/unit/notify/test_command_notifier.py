"""A program that is told: it gets JSON, may fail, and is not waited for longer than it may take."""

import json
import sys
import time
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.notify.command_notifier import CommandNotifier
from mlscale.notify.delivery import DeliveryResult

COPY = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"


def test_it_gets_the_document(tmp_path: Path) -> None:
    assert CommandNotifier([sys.executable, "-c", COPY, str(tmp_path / "it; $(x)")]).send_document(
        {"a": "ä"}
    ) == DeliveryResult(True, False)
    assert json.loads((tmp_path / "it; $(x)").read_text()) == {"a": "ä"}


def test_what_fails_is_reported() -> None:
    assert CommandNotifier([sys.executable, "-c", "raise SystemExit(3)"]).send_document({}).why == "it ended with 3"
    assert CommandNotifier(["/no/such/program"]).send_document({}).why == "No such file or directory"


def test_what_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    child = f"import subprocess, sys; subprocess.run(['sh', '-c', 'sleep 2; touch {tmp_path}/late'])"
    start = time.monotonic()
    assert CommandNotifier([sys.executable, "-c", child], timeout_s=0.5).send_document({}) == DeliveryResult(
        False, True, "no end within 0.5 s", may_have_arrived=True
    )
    assert time.monotonic() - start < 1.9
    time.sleep(2.2)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("words", ["rm -rf /", [], [1]])
def test_what_is_no_list_of_words(words: list[str]) -> None:
    with pytest.raises(MLScaleError, match="not a list of words"):
        CommandNotifier(words)
