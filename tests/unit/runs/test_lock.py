"""The lock of a run: one process at a time; a job waits for an earlier start on a node that its scheduler has lost."""

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.runs import lock
from mlscale.runs.folder import RunFolder
from mlscale.runs.lock import hold_run_lock


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose first attempt is this process."""
    return RunFolder.create(tmp_path, "resnet", command="train", config_yaml="seed: 0\n", seed=0, overrides=[])


@pytest.fixture
def other(run: RunFolder) -> Iterator[int]:
    """A handle by which another process holds the lock: a second one of the same folder excludes the first."""
    handle = os.open(run.path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield handle
    os.close(handle)


@pytest.mark.parametrize(("is_job", "code"), [(False, Exit.USER), (True, Exit.ENVIRONMENT)])
def test_only_a_job_that_is_refused_is_started_again(
    run: RunFolder, other: int, monkeypatch: pytest.MonkeyPatch, is_job: bool, code: Exit
) -> None:
    monkeypatch.setattr(lock, "_JOB_SECONDS", 0.3)
    with pytest.raises(MLScaleError, match="another process is working on the run") as caught:
        hold_run_lock(run, is_job=is_job).__enter__()
    assert caught.value.exit == code


def test_a_job_waits_for_an_earlier_start(run: RunFolder, other: int, capsys: pytest.CaptureFixture[str]) -> None:
    timer = threading.Timer(0.6, fcntl.flock, (other, fcntl.LOCK_UN))
    timer.start()
    with hold_run_lock(run, is_job=True):
        assert not timer.is_alive()
    assert "waiting   an earlier start of the job holds the run" in capsys.readouterr().err
