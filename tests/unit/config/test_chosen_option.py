"""Where a name is near to nothing, the chosen option's own key of that meaning goes before another option's key."""

from __future__ import annotations

import shlex

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup
from mlscale.errors import MLScaleError

TABLE = "data=table data.train=x.csv data.target=old"
TEXTS = "data=text_table data.train=x.csv data.label=old"


def problems(words: list[str]) -> list[MLScaleError]:
    request = parse_command_line("train", words)
    origin = create_origin_lookup("train", request.overrides, request.roots)
    return check_config(compose_config(request), groups=request.roots.groups, origin=origin)


@pytest.mark.parametrize(
    ("chosen", "typed", "fix"),
    [
        (TABLE, "data.label=y", "data.target=y"),
        (TABLE, "data.labels=y", "data.target=y"),
        (TABLE, "label_column=y", "data.target=y"),
        (TEXTS, "data.target=y", "data.label=y"),
        ("scheduler=one_cycle", "scheduler.warmup=0.1", "scheduler.pct_start=0.1"),
        ("scheduler=warmup_cosine", "scheduler.pct_start=0.1", "scheduler.warmup=0.1"),
        ("model=vit", "model.layers=4", "model.depth=4"),
        ("model=gpt", "model.dim=64", "model.width=64"),
        ("model=vit", "Model.dim=64", "model.dim=64"),
        ("", "callbacks.model_checkpoint.save_top_k=2", "callbacks.checkpoint.save_top_k=2"),
        ("", "logger.wandb.projct=x", "logger=[csv,wandb] logger.wandb.project=x"),
        ("", "logger.wandb.job_type=x", "leave logger.wandb.job_type out"),
    ],
)
def test_the_key_that_was_meant(chosen: str, typed: str, fix: str) -> None:
    (problem,) = problems([*chosen.split(), typed])
    assert problem.fix == fix
    if not fix.startswith("leave "):
        assert problems([*chosen.split(), *shlex.split(fix)]) == []
