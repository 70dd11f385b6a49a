"""What CPU kernels take while they compute, against the allocator, call by call."""

import platform
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mlscale.estimate.kernel_scratch import estimate_cpu_scratch
from mlscale.estimate.live_tensors import LiveTensorMode

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="torch's newer profiler is compared with on x86-64 alone",
)


def allocated(call: Callable[[], Any]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    total: int = 0
    peak: int = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    del kept
    return int(peak)


def counted(call: Callable[[], Any]) -> int:
    with LiveTensorMode(estimate_cpu_scratch) as live:
        kept = call()
    del kept
    return int(live.peak)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Another number of threads means other kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def test_what_takes_none() -> None:
    x = torch.randn(1000)
    assert counted(lambda: x + 1) == 4000


MASK, FLOATS, COLUMN = torch.ones(8, 64, 32, dtype=torch.bool), torch.ones(8, 64, 32), torch.ones(8, 64, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: FLOATS * MASK,
        lambda: COLUMN / MASK,
        lambda: FLOATS.to(torch.bfloat16) + COLUMN,
        lambda: FLOATS - FLOATS,
        lambda: MASK.sum(2),
        lambda: MASK.sum(),
        lambda: FLOATS.sum(2),
    ],
    ids=["mask", "one column", "bf16", "same type", "sum of booleans", "sum of all booleans", "sum"],
)
def test_operands_of_another_type_are_converted(call: Callable[[], Any]) -> None:
    assert counted(call) == pytest.approx(allocated(call), abs=512)
