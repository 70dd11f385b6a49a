"""Settings that are impossible are refused with their key before a run has a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlscale
from mlscale.errors import MLScaleError


@pytest.mark.parametrize(
    "typed",
    [
        "optimizer.lr=-0.1",
        "task.label_smoothing=1.5",
        "scheduler=one_cycle scheduler.pct_start=25",
        "optimizer=sgd optimizer.momentum=9",
        "data.root=None",
    ],
)
def test_an_impossible_value_is_refused_before_the_start(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MLScaleError) as caught:
        mlscale.run("train", ["+recipe=resnet", "trainer.max_epochs=1", *typed.split()])
    (problem,) = caught.value.list_problems()
    key = typed.split()[-1].partition("=")[0]
    assert key in problem.where.replace("=", " ").split()
    assert "MLSCALE_TRACEBACK" not in problem.fix
    assert list(tmp_path.iterdir()) == []
