"""What a rank of a sharded model holds at its peak, term by term, against what FSDP's schedule makes of the sizes."""

from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mlscale.estimate.live_tensors import LiveTensorMode
from mlscale.estimate.sharded_step import Sharding
from mlscale.estimate.step import StepSettings
from mlscale.estimate.step_memory import UNCHECKED_ERROR, StepMemory, estimate_peak_memory, trace_two_steps
from mlscale.tasks import Classification
from mlscale.train.strategies.sharding import ShardSettings

pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith("2.13."), reason="FSDP of torch 2.13 alone is estimated; another one is refused"
)

WIDTH, BLOCKS = 256, 4
BLOCK, REST = 4 * WIDTH * WIDTH, 4 * WIDTH * 10  # bytes of a block that is gathered alone, and of what is left
WHOLE = BLOCKS * BLOCK + REST
SETTINGS = partial(ShardSettings, wrap_min_params=WIDTH * WIDTH)
# So few samples that activations are nothing next to weights.
BATCH: dict[str, Any] = {"x": torch.randn(2, 1, 16, 16), "y": torch.arange(2)}


def build() -> Classification:
    blocks = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(BLOCKS)]
    model = nn.Sequential(nn.Flatten(), *blocks, nn.Linear(WIDTH, 10, bias=False))
    return Classification(10, model=model, optimizer=partial(torch.optim.AdamW, lr=1e-3))


ONE_PASS = StepSettings()


@cache
def trace(sharding: Sharding, loop: StepSettings = ONE_PASS) -> LiveTensorMode:
    return trace_two_steps(build, BATCH, loop, sharding)


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_rank_has_its_part_and_what_one_block_is_exchanged_with(ranks: int) -> None:
    live = trace(Sharding(ranks, SETTINGS()))
    split = live.split_peak()
    # 10 rows over 4 ranks are 3 on the first one.
    shard = BLOCKS * BLOCK // ranks + REST * {2: 5, 4: 3}[ranks] // 10
    assert split["parameters"] == shard
    assert split["optimizer_state"] == pytest.approx(2 * shard, abs=64)  # two moments; a step count per parameter
    # A block's gradients are copied into the buffer that is sent; that of the block before it is kept until then.
    assert split["exchange_buffers"] == 2 * BLOCK
    assert split["scratch"] == BLOCK  # gloo's copy of it
    assert split["whole_gradients"] == BLOCK + REST  # the next block's; and the rest's, until the end
    assert split["gradients"] == 3 * BLOCK // ranks  # of three blocks, reduced
    # The rest is gathered for the whole step; a shard of 3 rows makes 12 of 10.
    assert split["gathered_weights"] == {2: REST, 4: REST * 12 // 10}[ranks]
    assert live.peak == sum(split.values())


def test_a_checkpoint_has_weights_and_two_moments_of_this_rank_or_of_all() -> None:
    live = trace(Sharding(2, SETTINGS()))
    assert live.whole_state_bytes == pytest.approx(3 * WHOLE, abs=64)
    assert live.own_state_bytes == pytest.approx(3 * WHOLE / 2, abs=64)
    memory = StepMemory.read_live_tensors(live, live.split_peak(), 0.1, "traced")
    assert memory.compute_save_bytes(is_sharded=True) == live.own_state_bytes
    assert memory.compute_save_bytes(is_sharded=False) == 2 * live.whole_state_bytes


def test_the_model_is_whole_while_it_is_sharded() -> None:
    start = trace(Sharding(2, SETTINGS())).start
    assert WHOLE + BLOCK // 2 <= start < WHOLE + WHOLE // 2


def test_accumulated_gradients_are_whole() -> None:
    split = trace(Sharding(2, SETTINGS()), StepSettings(passes=2)).split_peak()
    # Three blocks and the rest wait for their turn: the first one's are reduced, and freed.
    assert split["whole_gradients"] == 3 * BLOCK + REST
    assert split["gradients"] == BLOCK // 2


def test_weights_that_stay_gathered_are_all_there_in_the_backward_pass() -> None:
    split = trace(Sharding(2, SETTINGS(reshard_after_forward=False))).split_peak()
    assert split["gathered_weights"] == 3 * BLOCK + REST


@pytest.mark.parametrize(("reduce_dtype", "buffers", "copy"), [("fp32", 1.5, 1.0), ("bf16", 1.0, 0.5)])
def test_bf16_halves_what_is_sent(reduce_dtype: Any, buffers: float, copy: float) -> None:
    settings = SETTINGS(reduce_dtype=reduce_dtype)
    split = trace(Sharding(2, settings), StepSettings("bf16-mixed")).split_peak()
    # Weights are sent in bfloat16 in any case; gradients in the type in which they are added up.
    assert split["exchange_buffers"] == buffers * BLOCK
    assert split["gathered_weights"] == REST // 2
    assert split["scratch"] == copy * BLOCK
    assert split["parameters"] == WHOLE // 2


def test_hybrid_sharding_divides_by_the_processes_of_a_group() -> None:
    hybrid, two = trace(Sharding(4, SETTINGS(), replicate=2)), trace(Sharding(2, SETTINGS()))
    assert hybrid.own_state_bytes == two.own_state_bytes
    assert hybrid.peak == pytest.approx(two.peak, rel=0.001)


def test_with_offload_the_device_holds_what_is_gathered_and_the_host_the_rest() -> None:
    live = trace(Sharding(2, SETTINGS(cpu_offload=True)), StepSettings(cpu_kernels=False))
    split = live.split_peak()
    assert split.get("parameters", 0) == split.get("gradients", 0) == split.get("optimizer_state", 0) == 0
    assert split["exchange_buffers"] == 2 * BLOCK
    assert live.hosted_peak == pytest.approx(4 * WHOLE / 2, abs=64)  # weights, gradients and two moments


def test_what_was_patched_is_as_before() -> None:
    resize = torch.UntypedStorage.resize_
    trace.__wrapped__(Sharding(2, SETTINGS()))
    assert torch.UntypedStorage.resize_ is resize
    assert not dist.is_initialized()


class Choosing(nn.Linear):
    """A layer that depends on a value, which a fake tensor does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.mean().item() < 100 else -x)


def test_steps_that_can_not_be_traced_are_taken_for_real_as_the_first_rank() -> None:
    def build_choosing() -> Classification:
        task = build()
        task.model[1] = Choosing(WIDTH, WIDTH, bias=False)  # type: ignore[operator]
        return task

    real = estimate_peak_memory(build_choosing, BATCH, StepSettings(), Sharding(2, SETTINGS()))
    assert real.how.startswith("two real steps, as the first of 2 processes (off by")
    assert "a trace was not possible (DataDependentOutputException" in real.how
    assert real.error == UNCHECKED_ERROR
    assert real.peak == pytest.approx(trace(Sharding(2, SETTINGS())).peak, rel=0.01)
