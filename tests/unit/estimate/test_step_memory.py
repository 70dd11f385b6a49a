"""The peak of a training step: against the allocator's own sum, and against real steps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlscale.estimate.live_tensors import LiveTensorMode
from mlscale.estimate.step import StepSettings, run_two_steps
from mlscale.estimate.step_memory import (
    UNCHECKED_ERROR,
    StepMemory,
    count_samples,
    cut_batch,
    estimate_peak_memory,
    extrapolate_split,
    probe_two_steps,
)
from mlscale.tasks import MLP, Classification, ResNet

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
ADAMW = partial(torch.optim.AdamW, lr=1e-3)
Build = Callable[[], Classification]


def building(model: Callable[[], nn.Module], optimizer: Callable[..., Any] = SGD) -> Build:
    return lambda: Classification(10, model=model(), optimizer=optimizer)


def images(count: int, side: int = 8) -> dict[str, Any]:
    return {"x": torch.randn(count, 1, side, side), "y": torch.arange(count) % 10, "key": ["a"] * count}


def allocated(build: Build, batch: Any, loop: StepSettings) -> int:
    """The peak by the allocator: the profiler's running total of two real steps and of what they start from."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run_two_steps(
            build(),
            {name: v.clone() if isinstance(v, Tensor) else v for name, v in batch.items()},
            loop,
            LiveTensorMode(),
        )
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


@pytest.mark.parametrize(
    ("build", "batch", "loop"),
    [
        (building(lambda: MLP(64, 10, [256, 256]), ADAMW), images(128), StepSettings()),
        (building(lambda: ResNet(1, 10)), images(64), StepSettings()),
        (building(lambda: ResNet(1, 10), ADAMW), images(32, 16), StepSettings("bf16-mixed", clip=1.0)),
        (building(lambda: ResNet(1, 10)), images(32, 16), StepSettings(passes=4)),
    ],
    ids=["mlp", "resnet", "bf16, clipped", "accumulated"],
)
def test_within_the_stated_error_of_the_allocator(build: Build, batch: Any, loop: StepSettings) -> None:
    estimate = estimate_peak_memory(build, batch, loop)
    assert estimate.how == "two steps traced with fake tensors"
    assert estimate.error == UNCHECKED_ERROR
    assert estimate.peak == pytest.approx(allocated(build, batch, loop), rel=UNCHECKED_ERROR)


def test_the_parts_are_those_of_the_moment() -> None:
    """A few samples peak when the optimizer steps, with every gradient; many in the backward pass, with few of them."""
    size = 4 * (64 * 256 + 256 + 256 * 10 + 10)
    few, many = (
        estimate_peak_memory(building(lambda: MLP(64, 10, [256]), ADAMW), images(n), StepSettings()) for n in (4, 4096)
    )
    for memory in (few, many):
        assert memory.parameters == size
        assert memory.optimizer_state == pytest.approx(2 * size, abs=64)  # two moments; a step count per parameter
        parts = memory.parameters + memory.gradients + memory.optimizer_state + memory.activations + memory.scratch
        assert parts == memory.peak
    assert few.gradients == size > many.gradients
    assert many.activations > 4096 * 256 * 4


def test_nothing_is_allocated_and_no_random_number_is_used() -> None:
    wide = building(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10**8), nn.Linear(10**8, 10)))
    batch = images(4)
    before = torch.random.get_rng_state()
    assert estimate_peak_memory(wide, batch, StepSettings()).peak > 80 * 10**9  # more than this machine may have
    assert torch.equal(torch.random.get_rng_state(), before)


def test_layers_that_find_their_size_are_traced() -> None:
    lazy, known = (
        estimate_peak_memory(building(partial(MLP, size, 10)), images(16), StepSettings()) for size in (None, 64)
    )
    assert lazy == known


def test_initialisation_works_again_after_a_trace() -> None:
    estimate_peak_memory(building(lambda: ResNet(1, 10)), images(4), StepSettings())
    assert not nn.init.zeros_(torch.ones(3)).any()
    with pytest.raises(ZeroDivisionError):
        estimate_peak_memory(building(lambda: nn.Linear(1 // 0, 10)), images(4), StepSettings())
    assert not nn.init.zeros_(torch.ones(3)).any()


class Choosing(nn.Module):
    """What it computes depends on a value, which a fake tensor has not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = MLP(64, 10, [256])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x if x.mean().item() < 100 else -x)
        return logits


def choosing(samples: int) -> StepMemory:
    return estimate_peak_memory(building(Choosing), images(samples), StepSettings())


def test_a_step_that_depends_on_data_is_taken_for_real() -> None:
    traced = estimate_peak_memory(building(lambda: MLP(64, 10, [256])), images(4), StepSettings())
    memory = choosing(4)
    assert memory.how.startswith("two real steps: a trace was not possible (DataDependentOutputException")
    assert memory.peak == pytest.approx(traced.peak, rel=0.01)


class Asserting(Choosing):
    """Refuses fake tensors as torch does: by an assertion that names an object by its address."""

    def forward(self, x: Tensor) -> Tensor:
        assert type(x) is Tensor, self.forward
        return self.layers(x)  # type: ignore[no-any-return]


def test_an_assertion_of_a_trace_is_a_plain_reason() -> None:
    memory = estimate_peak_memory(building(Asserting), images(4), StepSettings())
    assert memory.how == "two real steps: a trace was not possible (torch's fake tensors do not take it)"


def test_of_a_large_batch_a_small_part_is_taken_and_extrapolated() -> None:
    memory = choosing(512)
    assert memory.how.startswith("real steps on 4 and 8 samples, extrapolated: a trace was not possible")
    traced = estimate_peak_memory(building(lambda: MLP(64, 10, [256])), images(512), StepSettings())
    assert memory.peak == pytest.approx(traced.peak, rel=memory.error)


def test_extrapolation_is_a_line_through_both() -> None:
    splits = [(4, {"parameters": 100, "other": 40}), (8, {"parameters": 100, "other": 80})]
    assert extrapolate_split(splits, 32) == {"parameters": 100, "other": 320}
    assert extrapolate_split(splits[1:], 8) == {"parameters": 100, "other": 80}


def test_a_batch_is_cut_where_samples_lie() -> None:
    batch = {"x": torch.zeros(6, 6), "y": torch.arange(6), "scale": torch.tensor(2.0), "name": "n"}
    part = cut_batch(batch, 2)
    assert count_samples(batch) == 6
    assert (part["x"].shape, part["y"].tolist(), float(part["scale"]), part["name"]) == ((2, 6), [0, 1], 2.0, "n")


def test_old_gradients_live_through_the_next_forward_pass() -> None:
    """As in Lightning's loop: a model whose peak is in the forward pass shows them there."""
    live = probe_two_steps(building(lambda: MLP(64, 10, [64])), images(8192), StepSettings())
    assert live.split_peak()["gradients"] > 0
    assert sum(live.split_peak().values()) == live.peak
