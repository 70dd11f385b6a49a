"""Settings that are impossible are refused with their key before a run has a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlscale
from mlscale.assembly.sweep_check import check_job
from mlscale.cli import main
from mlscale.config.composition.argv import parse_command_line
from mlscale.errors import MLScaleError


@pytest.mark.parametrize(
    "typed",
    [
        "optimizer.lr=-0.1",
        "task.label_smoothing=1.5",
        "scheduler=one_cycle scheduler.pct_start=25",
        "optimizer=sgd optimizer.momentum=9",
        "data.root=None",
        "scheduler=one_cycle scheduler.max_lr=-3",
        "scheduler=cosine scheduler.eta_min=-1",
        "trainer.gradient_clip_val=-1",
        "metric=",
        "launch.max_restarts=-1",
        "optimizer.weight_decay=-1",
        "model=vit model.dropout=2",
    ],
)
@pytest.mark.parametrize("start", ["train", "check"])
def test_an_impossible_value_is_refused_before_the_start(
    typed: str, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["+recipe=resnet", "trainer.max_epochs=1", *typed.split()]
    with pytest.raises(MLScaleError) as caught:
        mlscale.run("train", words) if start == "train" else check_job(parse_command_line("train", words))
    (problem,) = caught.value.list_problems()
    key = typed.split()[-1].partition("=")[0]
    assert key in problem.where.replace("=", " ").split()
    assert "MLSCALE_TRACEBACK" not in problem.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "typed", ["optimizer=adamw optimizer.betas=[2,3]", "-m optimizer=adamw optimizer.betas=[2,3] seed=1,2"]
)
def test_the_check_builds_what_refuses_its_own_settings(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "+recipe=resnet", *typed.split()]) == 2
    assert "Invalid" in capsys.readouterr().err


@pytest.mark.parametrize(
    "typed", ["task.class_weights=[1,2,3]", "scheduler=warmup_linear scheduler.warmup=500", "model=none"]
)
def test_what_the_data_decides_is_not_refused_by_the_check(typed: str) -> None:
    assert main(["config", "check", "+recipe=resnet", *typed.split()]) == 0
