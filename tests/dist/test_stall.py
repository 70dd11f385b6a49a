"""Several ranks of which one hangs: each writes its stacks, and the run ends when it is asked to."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import runs_in
from tests.forked import run
from tests.resume.commands import ROOT

WORDS = (
    *("+recipe=resnet", "model=mlp", "snapshot=false", "callbacks.stall.stop=true", "callbacks.stall.least_s=4"),
    *("callbacks.stall.factor=2", "+callbacks.hang._target_=tests.dist.recorder.Hang"),
)


def typed(*words: str) -> subprocess.CompletedProcess[str]:
    return run(*WORDS, *words, cwd=Path.cwd(), env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_one_of_two_ranks_hangs(folder: Path) -> None:
    """In a process of its own: ranks print where the fork server did, which another test may have started."""
    ended = typed("trainer.devices=2", "callbacks.hang.rank=1")
    err = ended.stderr
    assert ended.returncode == 5, err
    assert err.count("error: rank ") == 1
    (made,) = runs_in(folder)
    waiting, hanging = ((made / "logs" / f"stall-rank{rank}.txt").read_text() for rank in (0, 1))
    assert "_engine_run_backward" in waiting
    assert "in _hang" in hanging
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert "no step for " in manifest["sentence"]


@pytest.mark.slow
def test_code_that_does_not_let_python_run(folder: Path) -> None:
    ended = typed("trainer.devices=2", "callbacks.hang.rank=1", "callbacks.hang.locked=true")
    assert ended.returncode == 5, ended.stderr
    assert "in _hang" in ended.stderr, "by faulthandler, which needs no lock"


@pytest.mark.slow
@pytest.mark.parametrize("locked", [False, True])
def test_one_process(folder: Path, locked: bool) -> None:
    notify = ["callbacks=[default,notify]", "callbacks.notify.command=[tee,-a,notices]"]
    ended = typed(f"callbacks.hang.locked={locked}", "callbacks.hang.seconds=12", "trainer.max_epochs=5", *notify)
    if locked:  # it can not be ended, but where it is can be reported
        assert ended.returncode == 0, ended.stderr
        assert "recorder.py" in ended.stderr
        assert "in _hang" in ended.stderr
        return
    assert ended.returncode == 5, ended.stderr
    assert "error: no step for " in ended.stderr
    (made,) = runs_in(folder)
    assert json.loads((made / "manifest.json").read_text())["status"] == "failed"
    assert (folder / "notices").read_text().count('"event": "hung"') == 1
    assert (folder / "notices").read_text().count('"event": "failed"') == 1
