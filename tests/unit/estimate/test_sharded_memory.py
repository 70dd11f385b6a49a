"""The memory of a sharded step, from that of a whole one."""

import pytest
from torch import nn

from mlscale.estimate.sharded_memory import shard_step_memory
from mlscale.estimate.step_memory import StepMemory
from mlscale.tasks.models.gpt import GPT


def whole(values: int, activations: int = 1000) -> StepMemory:
    """AdamW's step, in bytes of float32."""
    size = 4 * values
    return StepMemory(4 * size + activations, size, size, 2 * size, activations, 0, 0.03, "traced")


def test_a_rank_has_its_part_and_what_is_gathered() -> None:
    model = nn.Sequential(nn.Linear(10, 100, bias=False), nn.Linear(100, 10, bias=False), nn.Linear(10, 1, bias=False))
    memory = shard_step_memory(whole(2010), model, 4, min_params=1000)
    assert memory.parameters == 4 * 2010 // 4 + 4 * (2 * 10 + 5 * 1000)
    assert (memory.gradients, memory.optimizer_state, memory.activations) == (2010, 2 * 2010, 1000)
    assert memory.peak == sum((memory.parameters, memory.gradients, memory.optimizer_state, memory.activations))
    assert memory.error == 0.2
    assert "sharded over 4 processes" in memory.how


def test_accumulated_gradients_are_whole_and_bf16_weights_half() -> None:
    model = nn.Sequential(nn.Linear(10, 100, bias=False))
    memory = shard_step_memory(whole(1000), model, 2, min_params=10, weight_bytes=2, keeps_gradients=True)
    assert memory.gradients == 2000
    assert memory.parameters == 2000 + 2 * 5 * 1000


def test_buffers_are_not_sharded() -> None:
    gpt = GPT(vocab_size=16, length=8, width=16, layers=2, heads=2)
    buffers = sum(value.nbytes for value in gpt.buffers())
    values = sum(value.numel() for value in gpt.parameters())
    memory = StepMemory(0, 4 * values + buffers, 0, 0, 0, 0, 0.03, "")
    many = shard_step_memory(memory, gpt, 1_000_000)
    block = sum(value.numel() for value in gpt.blocks[0].parameters())
    rest = values - 2 * block
    assert many.parameters == pytest.approx(buffers + 4 * (2 * rest + 5 * block), abs=4)
