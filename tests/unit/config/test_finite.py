"""NaN and infinity are refused where a finite number is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup
from mlscale.errors import MLScaleError


def problems(*overrides: str) -> list[MLScaleError]:
    request = parse_command_line("train", overrides)
    origin = create_origin_lookup("train", request.overrides, request.roots)
    return check_config(compose_config(request), groups=request.roots.groups, origin=origin)


@pytest.mark.parametrize(
    "typed",
    [
        "optimizer.lr=nan",
        "optimizer.weight_decay=-inf",
        "trainer.gradient_clip_val=inf",
        "trainer.limit_val_batches=nan",
        "task.label_smoothing=nan",
        "callbacks.stall.after_s=inf",
    ],
)
def test_a_number_that_is_not_finite_is_refused(typed: str) -> None:
    (problem,) = problems(typed)
    key = typed.partition("=")[0]
    assert problem.what.startswith(f"'{key}' must be a finite number, not ")
    assert problem.fix == ""
    assert problems(f"{key}=0.5") == []


def test_an_optimizer_takes_no_number_that_is_not_finite_whatever_its_annotation_says() -> None:
    found = problems("optimizer._target_=torch.optim.RMSprop", "optimizer.alpha=nan", "optimizer.lr=inf")
    assert [problem.what.partition(" ")[0] for problem in found] == ["'optimizer.lr'", "'optimizer.alpha'"]
    (problem,) = problems("optimizer=adamw", "optimizer.betas=[nan,0.9]")
    assert problem.fix == ""


def test_third_party_code_may_take_infinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "with_bounds.py").write_text("class Net:\n    def __init__(self, clip: float = 1.0, n: int = 1): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    target = "model._target_=with_bounds.Net"
    assert problems(target, "model.clip=inf") == []
    (problem,) = problems(target, "model.n=inf")
    assert problem.fix == ""
