"""A server that aborts while it starts is started again; what it then is decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.targets.started_process import start_process

# Counts its starts, and aborts in the first ones.
SERVER = 'echo start >> starts; [ $(wc -l < starts) -gt "$0" ] || kill -s ABRT $$; touch ready; exec sleep 60'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_server_that_aborts_is_started_again(folder: Path) -> None:
    with start_process(["sh", "-c", SERVER, "2"], (folder / "ready").exists, product="Triton", starts=3):
        assert (folder / "starts").read_text() == "start\n" * 3


@pytest.mark.parametrize(
    ("script", "starts", "code"),
    [(SERVER, 3, 134), ("echo start >> starts; echo no model; exit 1", 1, 1)],
    ids=["aborts each time", "ends by itself"],
)
def test_a_server_that_does_not_start_is_an_error(folder: Path, script: str, starts: int, code: int) -> None:
    with (
        pytest.raises(MLScaleError, match=f"Triton ended with exit code {code}") as raised,
        start_process(["sh", "-c", script, "9"], (folder / "ready").exists, product="Triton", starts=3),
    ):
        pass
    assert raised.value.exit == Exit.GATE
    assert (folder / "starts").read_text() == "start\n" * starts
