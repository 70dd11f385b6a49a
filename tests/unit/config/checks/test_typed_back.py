"""Fixes are overrides that the check accepts when they are typed in place of what was refused."""

from __future__ import annotations

import shlex

import pytest

from mlscale.api import compose
from mlscale.config.signatures.signatures import Unknown, read_signature
from mlscale.errors import MLScaleError


@pytest.mark.parametrize(
    ("mistake", "fix"),
    [
        ("trainer.max_time=1h", "trainer.max_time=00:01:00:00"),
        ("trainer.max_time=12:30:00", "trainer.max_time=00:12:30:00"),
        ("~callbacks.progres", "~callbacks.progress"),
        ("~logger.mine", "leave ~logger.mine out"),
        ("optimizer._target_=torch.optim.adamw", "optimizer._target_=torch.optim.adamw.AdamW"),
    ],
)
def test_the_mistake_is_gone_once_its_fix_is_typed(mistake: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        compose(["+recipe=resnet", mistake])
    assert caught.value.fix == fix
    typed = [] if fix.startswith("leave ") else shlex.split(fix)
    compose(["+recipe=resnet", *typed])


def test_a_target_is_corrected_to_a_class_and_not_to_its_module() -> None:
    found = read_signature("mlscale.tasks.models.MLP")
    assert isinstance(found, Unknown)
    assert found.better == "mlscale.tasks.models.mlp.MLP"
    found = read_signature("mlscale.taks.models.mpl.MLP")
    assert isinstance(found, Unknown)
    assert found.better == "mlscale.tasks.models.mlp.MLP"


def test_a_list_is_offered_only_to_a_key_that_takes_one() -> None:
    with pytest.raises(MLScaleError) as caught:
        compose(["+recipe=resnet", "optimizer.lr=0.1,0.01"])
    assert caught.value.fix == "-m optimizer.lr=0.1,0.01, which runs one job for each"
    with pytest.raises(MLScaleError) as caught:
        compose(["+recipe=resnet", "model.widths=16,32"])
    assert "model.widths=[16,32], for a list" in caught.value.fix
