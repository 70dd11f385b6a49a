"""`every=auto` next to another interval ends a command before it starts, and names what to take out."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from mlscale.cli import main
from mlscale.config.checks.check import check_config
from mlscale.config.checks.checkpoint_interval import collect_checkpoint_notices
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config

KEY = "callbacks.checkpoint"


def list_fixes(*overrides: str) -> list[str]:
    request = parse_command_line("train", overrides)
    return [problem.fix for problem in check_config(compose_config(request), groups=request.roots.groups)]


@pytest.mark.parametrize(
    ("set_keys", "fix"),
    [
        (("every_n_steps",), f"{KEY}.every_n_steps=null"),
        (("every_n_minutes",), f"{KEY}.every_n_minutes=null"),
        (("every_n_steps", "every_n_minutes"), f"{KEY}.every_n_steps=null {KEY}.every_n_minutes=null"),
    ],
)
def test_two_intervals(set_keys: tuple[str, ...], fix: str) -> None:
    overrides = [f"{KEY}.every=auto", *(f"{KEY}.{key}=3" for key in set_keys)]
    assert list_fixes(*overrides) == [f"{fix}; or {KEY}.every=null"]
    assert list_fixes(*overrides, *fix.split()) == []
    assert list_fixes(*overrides, f"{KEY}.every=null") == []


def test_auto_alone() -> None:
    assert list_fixes(f"{KEY}.every=auto", f"{KEY}.mtbf_hours=3.5") == []


def test_no_other_word() -> None:
    assert len(list_fixes(f"{KEY}.every=10")) == 1


def test_the_command_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+recipe=resnet", f"{KEY}.every=auto", f"{KEY}.every_n_minutes=5"]) == 2
    assert f"{KEY}.every_n_minutes=null" in capsys.readouterr().err


def test_a_time_between_failures_without_auto_is_reported() -> None:
    node = {"_target_": "mlscale.train.callbacks.Checkpoints", "mtbf_hours": 3, "every": None}
    config = OmegaConf.create({"callbacks": {"mine": node}})
    assert collect_checkpoint_notices(config) == [
        "callbacks.mine.mtbf_hours has no effect: it is for callbacks.mine.every=auto"
    ]
    config.callbacks.mine.every = "auto"
    assert collect_checkpoint_notices(config) == []
