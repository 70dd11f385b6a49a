"""The table of a multirun: the best job first."""

from pathlib import Path
from typing import Any

import pytest

from mlscale.report import Result
from mlscale.sweep import Job, Sweep


@pytest.mark.parametrize(("mode", "best"), [("max", ["4", "2", "5"]), ("min", ["5", "2", "4"])])
def test_a_metric_that_is_no_number_is_after_all_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, best: list[str]
) -> None:
    unasked: Any = None
    sweep = Sweep(unasked, folder=tmp_path, metric="val/auroc", mode=mode)
    for value in (float("nan"), 0.5, float("nan"), 0.9, 0.1):
        sweep.jobs.append(Job(["seed=1"], Result("train", True, "", {"val/auroc": value})))
    sweep.close()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[0] for row in rows] == [*best, "1", "3"]
