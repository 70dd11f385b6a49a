"""The strategies."""

from datetime import timedelta

import pytest
from pytorch_lightning.strategies import DDPStrategy

from mlscale.errors import MLScaleError
from mlscale.train import strategies


def test_auto_is_one_process_or_ddp() -> None:
    assert strategies.auto(world_size=1) == "auto"
    chosen = strategies.auto(world_size=2, timeout=60, find_unused_parameters=True)
    assert isinstance(chosen, DDPStrategy)
    assert chosen._timeout == timedelta(seconds=60)
    assert chosen._ddp_kwargs == {"find_unused_parameters": True, "gradient_as_bucket_view": True}


def test_single_refuses_more_than_one() -> None:
    assert strategies.single(world_size=1) == "auto"
    with pytest.raises(MLScaleError, match="2 are asked for") as caught:
        strategies.single(world_size=2)
    assert "trainer.devices=1" in caught.value.fix


def test_three_ranks_need_settled_buckets_to_repeat_a_sum() -> None:
    lightnings = DDPStrategy()
    assert strategies.has_stable_sum_order(lightnings, 2)
    assert not strategies.has_stable_sum_order(lightnings, 3)
    assert strategies.has_stable_sum_order(DDPStrategy(find_unused_parameters=True), 3)
    ours = strategies.ddp(world_size=3)
    assert isinstance(ours, DDPStrategy)
    assert strategies.has_stable_sum_order(ours, 3)
