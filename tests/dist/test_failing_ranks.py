"""A rank that is late, killed, or raises: told once, in words, with the right exit code, and soon."""

import json
from pathlib import Path

import pytest

from mlscale.cli import main
from tests.conftest import runs_in
from tests.resume.commands import ended

FAIL = "+callbacks.fail={_target_:tests.dist.recorder.Fail,how:%s}"
TIMEOUT = 30  # seconds of a collective: ranks wait for each other's imports, too


@pytest.mark.parametrize(
    ("how", "printed", "code"),
    [
        pytest.param("sleep", "a collective timed out: rank 1 did not take part", 5, marks=pytest.mark.slow),
        ("kill", "rank 1 was killed by SIGKILL", 5),
        ("tell", "the disk is full", 5),
        ("bug", "KeyError: 'a bug'", 1),
    ],
)
def test_the_cause_is_reported_once(
    folder: Path, capfd: pytest.CaptureFixture[str], how: str, printed: str, code: int
) -> None:
    words = (
        "+recipe=resnet",
        "model=mlp",
        "snapshot=false",
        "trainer.devices=2",
        FAIL % how,
        f"strategy.timeout={TIMEOUT}",
    )
    assert main(words) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("error: ") == 1
    assert f"error: {printed}\n" in err
    assert err.count(printed) == 1
    assert "Traceback" not in err
    assert "signal SIG" not in err  # what the agent logs
    (run,) = runs_in(folder)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert printed in manifest["sentence"]


@pytest.mark.slow
def test_a_killed_fork_server_is_the_cause_and_the_run_is_resumed(folder: Path) -> None:
    words = ("+recipe=resnet", "model=mlp", "snapshot=false", "trainer.devices=2", "trainer.max_epochs=3")
    code, printed = ended(folder, *words, FAIL % "fork server")
    assert code == 5, printed
    assert printed.count("error: the process that starts the ranks (the fork server) was killed") == 1, printed
    assert "pytorch.org" not in printed
    assert "Traceback" not in printed
    code, printed = ended(folder, "runs", "resume", "last")
    assert code == 0, printed
    assert "resumed from step 22 bitwise identical" in printed
    assert len(runs_in(folder)) == 1


def test_one_process_and_a_bug(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+recipe=resnet", "model=mlp", "snapshot=false", FAIL % "bug", "callbacks.fail.rank=0"]) == 1
    _, err = capsys.readouterr()
    assert err.count("KeyError: 'a bug'") == 1
    assert "Traceback" not in err
