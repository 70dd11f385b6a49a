"""Measure the peak memory of real training steps, by what a fit requests from torch's CPU allocator.

Nothing is modelled: kernels, callbacks and the optimizer take what they take in a run.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.autograd.profiler import record_function

from mlscale.estimate.live_tensors import iterate_tensors

_READY, _START = "mlscale: data and model are ready, bytes of the model: ", "mlscale: training starts"


class RecordedSteps(Callback):
    """A callback that marks the moments of a recorded fit, and replaces its batches by copies of the first one, since
    batches that other threads load are not recorded.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with record_function(f"{_READY}{_count_storage_bytes([*pl_module.parameters(), *pl_module.buffers()])}"):
            pass
        data: Any = getattr(trainer, "datamodule", None)
        source: Any = data if data is not None else pl_module
        make = source.train_dataloader
        # On the instance, before Lightning calls it: `setup` of callbacks comes before the loaders are made.
        source.train_dataloader = lambda: _CopiedBatch(make())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with record_function(_START):
            pass


class _CopiedBatch:
    """A loader that yields a copy of the first batch of another one, again and again."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self._batch = copy.deepcopy(next(iter(loader)))

    def __iter__(self) -> Iterator[Any]:
        # The fit limits its steps, and a loader that ended would add the end of an epoch.
        while True:
            yield self._batch


def measure_step_peak(fit: Callable[[], object]) -> int:
    """Return the most memory that the steps of a fit in this thread held, with the model and a batch, bytes.

    Args:
        fit: builds the task and trains it for at least two steps, with `RecordedSteps` among its callbacks.
    """
    with _record_allocations() as events:
        fit()
    held = peak = others = 0
    for name, size in events:
        held += size
        if name.startswith(_READY):
            others = held - int(name.removeprefix(_READY))  # without what the data holds
        peak = held if name == _START else max(peak, held)
    return peak - others


@contextlib.contextmanager
def _record_allocations() -> Iterator[list[tuple[str, int]]]:
    """Collect the events of this thread: the size of an allocation, bytes, negative where memory is freed; or 0, and
    the name of an operation that starts.

    By torch's older profiler: the newer one writes to stderr each time it starts.
    """
    events: list[tuple[str, int]] = []
    profiler: Any = torch._C._profiler  # its stubs miss the older one
    with_memory = (False, True, False, False, False)
    config = profiler.ProfilerConfig(profiler.ProfilerState.CPU, *with_memory, profiler._ExperimentalConfig())
    autograd: Any = torch.autograd
    autograd._enable_profiler_legacy(config)
    try:
        yield events
    finally:
        for thread in autograd._disable_profiler_legacy():
            events += [
                ("", event.cpu_memory_usage()) if event.kind() == "memory_alloc" else (event.name(), 0)
                for event in thread
            ]


def _count_storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    storages = [tensor.untyped_storage() for tensor in iterate_tensors(list(tensors))]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())
