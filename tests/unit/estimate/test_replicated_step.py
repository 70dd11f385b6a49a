"""What DDP's buckets hold, next to whole weights."""

from functools import partial
from typing import Any

import torch
from torch import nn

from mlscale.estimate.live_tensors import LiveTensorMode
from mlscale.estimate.replicated_step import Replication
from mlscale.estimate.step import StepSettings
from mlscale.estimate.step_memory import trace_two_steps
from mlscale.tasks import Classification

WEIGHTS = 4 * (64 * 1024 + 1024 * 10)


def build() -> Classification:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 1024, bias=False), nn.Linear(1024, 10, bias=False))
    return Classification(10, model=layers, optimizer=partial(torch.optim.SGD, lr=0.1))


def trace(processes: Replication | None, samples: int, passes: int = 1) -> LiveTensorMode:
    batch: dict[str, Any] = {"x": torch.randn(samples, 1, 8, 8), "y": torch.arange(samples) % 10}
    return trace_two_steps(build, batch, StepSettings(passes=passes), processes)


def test_gradients_in_buckets_are_there_when_those_of_one_process_are_not_yet() -> None:
    # Many samples peak at the start of the backward pass, where one process has no gradients.
    one, many = trace(None, 2048), trace(Replication(2), 2048)
    assert one.split_peak()["gradients"] < WEIGHTS
    assert many.split_peak()["gradients"] == WEIGHTS


def test_buckets_are_a_copy_of_the_gradients_unless_these_are_in_them() -> None:
    inside, apart = trace(Replication(2), 2), trace(Replication(2, bucket_view=False), 2)
    assert "exchange_buffers" not in inside.split_peak()
    assert apart.split_peak()["exchange_buffers"] == WEIGHTS
    assert apart.peak > inside.peak


def test_what_is_sent_in_bf16_is_a_copy_until_the_backward_pass_ends() -> None:
    plain, halved = trace(Replication(2), 2), trace(Replication(2, in_bf16=True), 2)
    assert 0 <= halved.peak - plain.peak <= WEIGHTS // 2
    assert halved.current == plain.current  # none is kept


def test_accumulated_gradients_are_next_to_the_buckets() -> None:
    accumulated, single = trace(Replication(2), 2, passes=2), trace(Replication(2), 2)
    assert accumulated.peak - single.peak >= 4 * 64 * 1024
