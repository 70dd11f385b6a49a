"""The strategies."""

from datetime import timedelta
from typing import Any

import pytest
from pytorch_lightning.strategies import DDPStrategy

from mlscale.errors import MLScaleError
from mlscale.train import strategies
from mlscale.train.strategies.bf16_reduction import reduce_in_bf16


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
    # torch assigns the buckets of a static graph again after its first step.
    assert not strategies.has_stable_sum_order(_build_ddp(static_graph=True), 3)
    assert strategies.has_stable_sum_order(_build_ddp(static_graph=True), 2)


def test_what_is_not_set_is_left_to_torch() -> None:
    plain = _build_ddp()
    assert "static_graph" not in plain._ddp_kwargs
    assert plain._ddp_comm_hook is None
    chosen = strategies.auto(world_size=2, static_graph=True, gradient_reduction="bf16")
    assert isinstance(chosen, DDPStrategy)
    assert chosen._ddp_kwargs["static_graph"]
    assert chosen._ddp_comm_hook is reduce_in_bf16


def test_one_process_is_not_sharded() -> None:
    assert strategies.fsdp(world_size=1, replicate=7) == "auto"
    for replicate in (0, 3, 4):
        with pytest.raises(MLScaleError, match="4 processes can't be"):
            strategies.fsdp(world_size=4, replicate=replicate)


def _build_ddp(**settings: Any) -> DDPStrategy:
    built = strategies.ddp(world_size=3, **settings)
    assert isinstance(built, DDPStrategy)
    return built
