"""Estimate the peak memory of a training step: by fake tensors where the model allows it, else by a small real probe.

Fake tensors have shapes, dtypes and storages with a size, and no data: two whole steps cost seconds on one core and
allocate nothing, whatever the size of the model.

The memory of a process at the peak of its training step, in parts, and what it needs at other moments.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import is_lazy

from mlscale.culprit import summarize_error
from mlscale.estimate.live_tensors import LiveTensorMode, iterate_tensors, map_tensors
from mlscale.estimate.step import Processes, StepSettings, run_two_steps

MEASURED_ERROR = 0.03  # of the run's own steps; by scripts/bench_estimate.py: see docs/benchmarks.md
PROCESSES_ERROR = 0.1  # of several processes; by scripts/bench_estimate_fsdp.py
UNCHECKED_ERROR = 0.25  # of a trace alone, or of small batches, which may peak elsewhere in the step
_PROBE_SAMPLES = (4, 8)  # samples of the two real batches that the peak is extrapolated from


def estimate_peak_memory(
    build: Callable[[], LightningModule],
    batch: object,
    loop: StepSettings,
    processes: Processes | None = None,
) -> StepMemory:
    """Return the peak memory of a training step on `batch`.

    Args:
        build: makes the task, with new parameters each time it is called.
        batch: a real one, on the CPU, as from the loader.
        processes: those that train together, of which the first one's memory is estimated; None for one process.

    Raises:
        Exception: any error of two real steps, where the trace was not possible either.
    """
    ranks = f", as the first of {processes.ranks} processes ({processes.measured_error})" if processes else ""
    try:
        live = trace_two_steps(build, batch, loop, processes)
    except Exception as raised:  # anything that fake tensors can't do, such as a branch on a value
        # What torch asserts of its own classes names objects by their addresses.
        text = "torch's fake tensors do not take it" if isinstance(raised, AssertionError) else summarize_error(raised)
        reason = f"a trace was not possible ({shorten(text, 160, placeholder=' …')})"
    else:
        how = f"two steps traced with fake tensors{ranks}"
        return StepMemory.read_live_tensors(live, live.split_peak(), UNCHECKED_ERROR, how)
    whole = count_samples(batch)
    probes = [
        (size, probe_two_steps(build, cut_batch(batch, size), loop, processes))
        for size in _PROBE_SAMPLES
        if size < whole
    ]
    splits = [(size, live.split_peak()) for size, live in probes]
    if not splits:
        live = probe_two_steps(build, batch, loop, processes)
        return StepMemory.read_live_tensors(
            live, live.split_peak(), UNCHECKED_ERROR, f"two real steps{ranks}: {reason}"
        )
    how = f"real steps on {' and '.join(str(size) for size, _ in splits)} samples{ranks}, extrapolated: {reason}"
    return StepMemory.read_live_tensors(probes[-1][1], extrapolate_split(splits, whole), UNCHECKED_ERROR, how)


def trace_two_steps(
    build: Callable[[], LightningModule], batch: object, loop: StepSettings, processes: Processes | None = None
) -> LiveTensorMode:
    """Trace two steps with fake tensors on the CPU. A model that can't be built with them is built first, then
    converted.

    Raises:
        Exception: a step needs a value, which a fake tensor does not have.
    """
    fake = FakeTensorMode()
    # Compiled models without the compiler, and later random numbers as they would be without an estimate.
    with torch.compiler.set_stance("force_eager"), torch.random.fork_rng(devices=[]), _disable_fake_log():
        try:
            with fake, _disable_initialisation():
                task: LightningModule | None = build()
                assert task is not None
            # Lazy layers get their shapes by a forward pass, which needs a real model here.
            if any(is_lazy(parameter) for parameter in task.parameters()):
                task = None
        except Exception:
            task = None
        if task is None:
            task = build()
            initialize_lazy_layers(task, batch)
            _make_fake(task, fake)
        inputs = map_tensors(batch, fake.from_tensor)
        return _count_two_steps(task, inputs, loop, processes, fake)


def probe_two_steps(
    build: Callable[[], LightningModule], batch: object, loop: StepSettings, processes: Processes | None = None
) -> LiveTensorMode:
    """Take two real steps on the CPU."""
    with torch.compiler.set_stance("force_eager"), torch.random.fork_rng(devices=[]):
        task = build()
        initialize_lazy_layers(task, batch)
        # A clone: the batch is used for other probes, too, and a step may change it in place.
        return _count_two_steps(task, map_tensors(batch, torch.clone), loop, processes)


def _count_two_steps(
    task: LightningModule,
    batch: object,
    loop: StepSettings,
    processes: Processes | None,
    fake: FakeTensorMode | None = None,
) -> LiveTensorMode:
    """Take two steps and count their tensors: those of the first of several processes, where there are several."""
    live = LiveTensorMode(count_gloo_copies if loop.cpu_kernels else None)
    with contextlib.ExitStack() as modes:
        prepare = modes.enter_context(processes.simulate_first(loop.precision, live)) if processes else None
        for mode in (fake, live) if fake else (live,):
            modes.enter_context(mode)
        run_two_steps(task, batch, loop, live, prepare)
    return live


def extrapolate_split(splits: list[tuple[int, dict[str, int]]], samples: int) -> dict[str, int]:
    """Return the split at `samples` from those at two batch sizes: each part is affine in the batch size."""
    (small, first), (large, second) = splits[0], splits[-1]
    if small == large:
        return second
    kinds = {**first, **second}
    slopes = {kind: (second.get(kind, 0) - first.get(kind, 0)) / (large - small) for kind in kinds}
    return {kind: max(0, round(second.get(kind, 0) + slopes[kind] * (samples - large))) for kind in kinds}


def count_samples(batch: object) -> int:
    """Return the length of the first tensor in a batch; 1 if there is none."""
    return next((tensor.shape[0] for tensor in iterate_tensors(batch) if tensor.ndim), 1)


def cut_batch(batch: object, samples: int) -> Any:
    """Return the first `samples` of a batch."""
    whole = count_samples(batch)
    # Tensors of another length, such as class weights, do not belong to the samples.
    return map_tensors(batch, lambda tensor: tensor[:samples] if tensor.ndim and tensor.shape[0] == whole else tensor)


def initialize_lazy_layers(task: LightningModule, batch: object) -> None:
    """Run one sample through the task if it has lazy layers, which get their shapes from it."""
    if not any(is_lazy(parameter) for parameter in task.parameters()):
        return
    task.eval()
    with torch.no_grad():
        task(next(iter(iterate_tensors(batch)))[:1])


def _make_fake(task: nn.Module, fake: FakeTensorMode) -> None:
    """Replace parameters and buffers by fake ones; those that modules share stay shared."""
    # By identity: tied weights that became two would count twice, with two gradients.
    made: dict[int, nn.Parameter] = {}
    for module in task.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(fake.from_tensor(parameter.data), parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake.from_tensor(buffer)


@contextlib.contextmanager
def _disable_initialisation() -> Iterator[None]:
    """Make the functions of `torch.nn.init` do nothing: some of them read values, which fake tensors do not have."""
    names = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]
    before = {name: getattr(nn.init, name) for name in names}
    for name in names:
        setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(nn.init, name, function)


@contextlib.contextmanager
def _disable_fake_log() -> Iterator[None]:
    """Switch off the log of fake tensors: it has a traceback of each error, which is also raised and reported."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


def count_gloo_copies(func: object, args: tuple[Any, ...], result: object) -> int:
    """Return the bytes that gloo copies: what it receives in an all-gather, and what it sends in a reduce-scatter.

    Args:
        func: the operation.
        args: its arguments, real or fake tensors among them.
        result: what it returned.
    """
    if func is torch.ops.c10d._allgather_base_.default:
        return int(args[0].nbytes)
    return int(args[1].nbytes) if func is torch.ops.c10d._reduce_scatter_base_.default else 0


_PARTS = (
    "parameters", "gradients", "optimizer_state", "scratch", "gathered_weights", "whole_gradients", "exchange_buffers",
)  # fmt: skip


@dataclass(frozen=True)
class StepMemory:
    """The peak of one process, bytes of tensors, by purpose at that moment.

    Attributes:
        peak: the sum of those below, up to `exchange_buffers`.
        parameters: with buffers; where processes share them, those of one process.
        activations: with the batch, and all else that is alive then, what a trace does not see included.
        scratch: of the kernel that runs then; on a CPU.
        error: the error of the peak, as a share of it.
        how: the method, in words.
        gathered_weights: whole weights of the parts of a model that are gathered at that moment.
        whole_gradients: those that processes have not yet divided among them.
        exchange_buffers: copies of weights and gradients that are sent and received.
        start: the peak while a process shards its model, which is whole until then; 0 where it stays whole.
        hosted: what is in the host's memory, with CPU offload.
        own_state, whole_state: what a checkpoint has of this process, and of all that share the model.
    """

    peak: int
    parameters: int
    gradients: int
    optimizer_state: int
    activations: int
    scratch: int
    error: float
    how: str
    gathered_weights: int = 0
    whole_gradients: int = 0
    exchange_buffers: int = 0
    start: int = 0
    hosted: int = 0
    own_state: int = 0
    whole_state: int = 0

    @classmethod
    def read_live_tensors(cls, live: LiveTensorMode, split: dict[str, int], error: float, how: str) -> StepMemory:
        """Return the memory of steps that were counted.

        Args:
            live: has counted them.
            split: the bytes at the peak by purpose.
            error, how: as in the result.
        """
        parts = {kind: split.get(kind, 0) for kind in _PARTS}
        parts["parameters"] += split.get("buffers", 0)
        peak = sum(split.values())
        return cls(
            peak=peak,
            activations=peak - sum(parts.values()),
            error=error,
            how=how,
            start=live.start,
            hosted=live.hosted_peak,
            own_state=live.own_state_bytes,
            whole_state=live.whole_state_bytes,
            **parts,
        )

    def add_unseen_bytes(self, count: int, error: float, how: str) -> StepMemory:
        """Return the memory with bytes that a trace has not seen, negative where it has seen too many.

        Args:
            error, how: as in the result.
        """
        peak = max(self.peak + count, self.parameters)
        rest = peak - self.peak + self.activations
        # What is less than nothing of activations is less of the kernels' scratch memory.
        return replace(
            self, peak=peak, activations=max(0, rest), scratch=self.scratch + min(0, rest), error=error, how=how
        )

    def compute_save_bytes(self, *, is_sharded: bool) -> int:
        """Return the most that a checkpoint takes of the host's memory on the process that needs the most for it.

        Args:
            is_sharded: each process writes its part, of which it makes a copy. Otherwise the first one gathers the
                whole state, and copies that, so that it can be written while steps go on.
        """
        return self.own_state if is_sharded else 2 * self.whole_state

    def collect_processes_metrics(self, save_bytes: int) -> dict[str, float]:
        """Return the metrics of a model on several processes; none for one that needs nothing for the others."""
        metrics: dict[str, float] = {}
        metrics |= {"exchange_buffers_bytes": self.exchange_buffers} if self.exchange_buffers or self.start else {}
        if self.start:
            metrics |= {
                "gathered_weights_bytes": self.gathered_weights,
                "whole_gradients_bytes": self.whole_gradients,
                "start_memory_bytes": self.start,
                "save_memory_bytes": save_bytes,
            }
        return metrics | ({"host_memory_bytes": self.hosted} if self.hosted else {})
