"""The table of a multirun: the best job first."""

from pathlib import Path
from typing import Any

import pytest

from mlscale.config.composition.argv import parse_command_line
from mlscale.report import Result
from mlscale.runs.folder import RunFolder
from mlscale.sweep import Sweep, SweepJob


@pytest.mark.parametrize(("mode", "best"), [("max", ["4", "2", "5"]), ("min", ["5", "2", "4"])])
def test_a_metric_that_is_no_number_is_after_all_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, best: list[str]
) -> None:
    unasked: Any = None
    sweep = Sweep(unasked, folder=tmp_path, metric="val/auroc", mode=mode)
    for value in (float("nan"), 0.5, float("nan"), 0.9, 0.1):
        sweep.jobs.append(SweepJob(["seed=1"], Result("train", True, "", {"val/auroc": value})))
    sweep.close()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[0] for row in rows] == [*best, "1", "3"]


def test_without_a_metric_the_table_goes_by_that_of_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(parse_command_line("train", ["-m", "seed=1,2"]), folder=tmp_path)
    for value in (0.5, 0.2):
        run = RunFolder.create(tmp_path, "a", command="train", config_yaml="{}", metric="val_loss", mode="min")
        result = Result("train", True, "", {"best_val_loss": value}, artifacts={"run": str(run.path)})
        sweep.jobs.append(SweepJob([f"seed={value}"], result))
        sweep._adopt_metric(result)
    sweep.close()
    header, _, *rows = capsys.readouterr().out.splitlines()[:4]
    assert "val_loss" in header
    assert [row.split()[0] for row in rows] == ["2", "1"]


def test_a_metric_that_was_set_stays(tmp_path: Path) -> None:
    sweep = Sweep(parse_command_line("train", ["-m", "seed=1,2"]), folder=tmp_path, metric="val_acc")
    sweep._adopt_metric(Result("train", True, "", {}))
    assert sweep.metric == "val_acc"
