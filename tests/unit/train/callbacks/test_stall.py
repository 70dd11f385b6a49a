"""A run that stalls is told, once, with its stacks; one that validates, saves or is debugged is not."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from mlscale.errors import Exit, MLScaleError
from mlscale.train.callbacks import Stall, stall
from mlscale.train.callbacks.stall import StallReport
from tests.unit.fitting import At, batches, classifier, fit, trainer

QUICK: dict[str, Any] = {"least_s": 0.8, "factor": 2.0, "after_s": 3.0}


class Hears(pl.Callback):
    """Is told of stalls."""

    def __init__(self) -> None:
        self.reports: list[StallReport] = []

    def on_stall(self, report: StallReport) -> None:
        self.reports.append(report)


def hang(seconds: float, at: int = 20) -> At:
    def sleep_here(run: Any, module: Any, index: int) -> None:
        if index == at:
            time.sleep(seconds)

    return At(sleep_here)


def test_a_stall_is_reported_once_with_place_and_stacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hears = Hears()
    fit(
        trainer(callbacks=[hang(2.0), Stall(**QUICK), hears], default_root_dir=tmp_path), classifier(), batches(2) * 400
    )
    (report,) = hears.reports
    printed = capsys.readouterr().err
    assert printed.count("warning   no step for ") == 1
    assert " in batch 21 of the run, a step takes " in printed
    assert "warning   the run continues after " in printed
    assert report.path == tmp_path / "logs" / "stall-rank0.txt"
    kept = report.path.read_text()
    assert kept.startswith(report.sentence)
    assert "in sleep_here\n" in kept
    assert not [thread for thread in threading.enumerate() if thread.name == "mlscale-stall"]


def test_what_takes_its_time_by_right_is_no_stall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Slow(pl.Callback):
        def on_validation_batch_end(self, *_: Any) -> None:
            time.sleep(1.3)

        def on_save_checkpoint(self, *_: Any) -> None:
            time.sleep(1.3)

    save = At(lambda run, module, index: run.save_checkpoint(tmp_path / "x.ckpt") if index == 20 else None)
    first = hang(1.3, at=0)  # longer than `least_s`, shorter than `after_s`: models are compiled then
    fit(trainer(callbacks=[Slow(), first, save, Stall(**QUICK)]), classifier(), batches(2) * 15)
    assert "no step" not in capsys.readouterr().err


def test_long_steps_are_no_stall(capsys: pytest.CaptureFixture[str]) -> None:
    slow = At(lambda run, module, index: time.sleep(0.25))
    fit(trainer(callbacks=[slow, Stall(factor=20.0, least_s=0.1, after_s=5.0)]), classifier(), batches(5))
    assert "no step" not in capsys.readouterr().err


def test_a_breakpoint_is_no_stall(capsys: pytest.CaptureFixture[str]) -> None:
    debugger = compile("import time\ndef interaction(s): time.sleep(s)", "/usr/lib/python3.11/pdb.py", "exec")
    here: dict[str, Any] = {}
    exec(debugger, here)
    stop = At(lambda run, module, index: here["interaction"](1.4) if index == 20 else None)
    fit(trainer(callbacks=[stop, Stall(**QUICK)]), classifier(), batches(2) * 15)
    assert "no step" not in capsys.readouterr().err


def test_it_is_ended_where_that_is_asked_for(tmp_path: Path) -> None:
    """By whom started it: here a test, which goes on."""
    ends: list[MLScaleError] = []
    with stall.set_stall_handler(lambda error, report: ends.append(error)):
        run = trainer(callbacks=[hang(1.6), Stall(stop=True, **QUICK)], default_root_dir=tmp_path)
        fit(run, classifier(), batches(2) * 15)
    (error,) = ends
    assert error.exit == Exit.ENVIRONMENT
    assert error.where == str(tmp_path / "logs" / "stall-rank0.txt")


def test_the_thread_ends_with_a_run_that_fails() -> None:
    def fail(run: Any, module: Any, index: int) -> None:
        raise RuntimeError("as asked")

    with pytest.raises(RuntimeError, match="as asked"):
        fit(trainer(callbacks=[At(fail), Stall()]), classifier(), batches(2))
    assert not [thread for thread in threading.enumerate() if thread.name == "mlscale-stall"]


@pytest.mark.parametrize("wrong", [{"factor": 0.0}, {"least_s": 0.0}, {"least_s": 10.0, "after_s": 5.0}])
def test_settings_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(MLScaleError, match=r"callbacks\.stall has"):
        Stall(**wrong)
