"""Find the fastest precision on this machine whose loss agrees with fp32: real steps of a task, in turns."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch
from pytorch_lightning import LightningModule

from mlscale.errors import MLScaleError
from mlscale.estimate.step import extract_loss, find_optimizers
from mlscale.stats.intervals import Interval
from mlscale.stats.ratios import compute_ratio_interval
from mlscale.train.precision import set_memory_layout

FP32 = "32-true"
ROUNDS = 7
MAX_SLOWDOWN = 3.0
"""Factor of fp32's time: a candidate whose first steps are slower than that is not measured further."""
_COMPARED_STEPS = 8  # steps at the start whose losses are compared
_MIN_ROUNDS = 3  # rounds on a machine that is slower than it seemed
_MAX_STEPS = 50  # steps of a round
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class PrecisionCandidate:
    """A precision and a memory layout.

    Attributes:
        precision: Lightning's, one of 32-true, bf16-mixed and 16-mixed.
        memory_format: of images; None leaves it.
    """

    precision: str = FP32
    memory_format: str | None = None

    @property
    def name(self) -> str:
        """The name to display."""
        called = {FP32: "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}.get(self.precision, self.precision)
        return f"{called} {self.memory_format}" if self.memory_format else called


@dataclass(frozen=True)
class CandidateMeasurement:
    """The measurements of a candidate.

    Attributes:
        candidate: the candidate.
        step_s: seconds of an optimizer step, the median of the rounds; NaN where it was not measured.
        factor: speed relative to fp32, with its interval; None where it was not measured.
        loss: mean of its first steps; `difference` is the share by which it differs from fp32's.
        peak_bytes: of device memory; None on a CPU.
        why: the reason for leaving it out; empty if it was measured.
    """

    candidate: PrecisionCandidate
    step_s: float
    factor: Interval | None
    loss: float
    difference: float
    peak_bytes: int | None = None
    why: str = ""

    def has_agreeing_loss(self, tolerance: float) -> bool:
        """Return whether its loss differs from fp32's by at most a share of `tolerance`."""
        return abs(self.difference) <= tolerance  # false for NaN


@dataclass(frozen=True)
class PrecisionComparison:
    """The measurements of all candidates; fp32 comes first."""

    measured: tuple[CandidateMeasurement, ...]
    steps: int
    seconds: float

    def select_best(self, tolerance: float) -> CandidateMeasurement:
        """Return the candidate with the largest proven gain: its factor's interval is above 1, and its loss agrees."""
        proven = [
            m for m in self.measured[1:] if m.factor is not None and m.factor.low > 1 and m.has_agreeing_loss(tolerance)
        ]
        return max(
            proven,
            key=lambda measurement: measurement.factor.value if measurement.factor else 0,
            default=self.measured[0],
        )


def list_candidates(accelerator: str, *, bf16: bool, images: bool) -> list[PrecisionCandidate]:
    """Return the candidates of a machine, fp32 first.

    Args:
        accelerator: cpu, cuda or mps.
        bf16: true if it computes bfloat16.
        images: true if samples are images, whose layout matters.
    """
    types = [FP32, *(["bf16-mixed"] if bf16 else []), *(["16-mixed"] if accelerator == "cuda" else [])]
    layouts = [None, "channels_last"] if images else [None]
    return [PrecisionCandidate(precision, layout) for precision in types for layout in layouts]


def compare_candidates(
    build: Callable[[], LightningModule],
    batches: Sequence[Any],
    chosen: Sequence[PrecisionCandidate],
    device: str,
    seconds: float,
    max_slowdown: float = MAX_SLOWDOWN,
) -> PrecisionComparison:
    """Train a little with each candidate, from the same weights on the same batches, in turns.

    Args:
        build: makes the task, with the same weights each time it is called.
        batches: real ones, as from the loader.
        chosen: fp32 first.
        device: the device to train on.
        seconds: about the total time.
        max_slowdown: factor of fp32's time; a candidate whose first steps are slower than that is not measured further.

    Raises:
        Exception: any error of a step in fp32.
    """
    began = time.perf_counter()
    # Copied once, before the clock: transfers are the same for all candidates.
    moved = [_move_to_device(batch, device) for batch in batches]
    sides: list[_CandidateTrial] = []
    left_out: list[CandidateMeasurement] = []
    for candidate in chosen:
        try:
            side = _CandidateTrial(candidate, build(), moved, device)
            side.measure_first_steps(seconds / len(chosen))
        except Exception as error:
            if candidate == chosen[0]:
                raise  # without fp32 there is nothing to compare with
            left_out.append(
                CandidateMeasurement(candidate, math.nan, None, math.nan, math.nan, why=str(error).split("\n")[0])
            )
            continue
        if sides and side.first_s > max_slowdown * sides[0].first_s:
            why = f"its first steps took {side.first_s / sides[0].first_s:.0f}× as long"
            left_out.append(
                CandidateMeasurement(
                    candidate, math.nan, None, side.loss, _compute_loss_difference(side, sides[0]), why=why
                )
            )
        else:
            sides.append(side)
    steps = (
        max(1, min(_MAX_STEPS, int(seconds / ROUNDS / sum(side.first_s for side in sides)))) if len(sides) > 1 else 1
    )
    for number in range(ROUNDS if len(sides) > 1 else 0):
        if number >= _MIN_ROUNDS and time.perf_counter() - began > 1.5 * seconds:
            break  # the machine is busy: fewer rounds, and a wider interval
        # The order alternates, so that a machine that gets slower or faster affects all sides alike.
        for side in sides if number % 2 else reversed(sides):
            side.time_round(steps, seconds / ROUNDS)
    base = sides[0]
    measurements = [
        CandidateMeasurement(
            side.candidate,
            median(side.rounds or [side.first_s]),
            compute_ratio_interval(base.rounds, side.rounds) if side.rounds else None,
            side.loss,
            _compute_loss_difference(side, base),
            side.peak_bytes,
        )
        for side in sides
    ]
    taken = sum(side.count for side in sides)
    # The run that follows needs the memory of all candidates.
    sides.clear()
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return PrecisionComparison((*measurements, *left_out), taken, time.perf_counter() - began)


class _CandidateTrial:
    """A task that is trained with one candidate."""

    def __init__(
        self, candidate: PrecisionCandidate, task: LightningModule, batches: Sequence[Any], device: str
    ) -> None:
        # Manual optimization has its own backward and optimizer calls, which `_run_step` would repeat.
        if not task.automatic_optimization:
            raise MLScaleError(
                "the task drives its optimizers itself",
                where="task.automatic_optimization",
                fix="precision=bf16\nprecision=fp32",
            )
        self.candidate, self.batches, self.device = candidate, batches, device
        self.task = task.to(device).train()
        set_memory_layout(self.task, candidate.memory_format)
        self.optimizers = find_optimizers(task.configure_optimizers())
        self.scaler = torch.amp.GradScaler(device, enabled=candidate.precision == "16-mixed")
        self.rounds: list[float] = []
        self.losses: list[float] = []
        self.count, self.first_s = 0, math.nan
        self.peak_bytes: int | None = None

    @property
    def loss(self) -> float:
        """The mean loss of the first steps."""
        return fmean(self.losses)

    def measure_first_steps(self, seconds: float) -> None:
        """Take the steps whose losses are compared, fewer if they would take longer than `seconds`; the later half
        gives the time of a step."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(_COMPARED_STEPS):
            start = time.perf_counter()
            self.losses.append(float(self._run_step()))  # `float` waits for the device
            times.append(time.perf_counter() - start)
            if sum(times) > seconds and len(times) > 1:
                break
        self.first_s = median(times[len(times) // 2 :])
        if self.device == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated()

    def time_round(self, steps: int, seconds: float) -> None:
        """Time `steps` steps; fewer if they are so slow that this round would take the time of all sides' rounds."""
        start, done = time.perf_counter(), 0
        while done < steps and (not done or time.perf_counter() - start < seconds):
            self._run_step()
            done += 1
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.rounds.append((time.perf_counter() - start) / done)

    def _run_step(self) -> torch.Tensor:
        torch.manual_seed(self.count)  # the same dropout on every side
        batch = self.batches[self.count % len(self.batches)]
        with _enable_autocast(self.device, self.candidate.precision):
            loss = extract_loss(self.task.training_step(batch, self.count))
        # In Lightning's order: gradients are freed between the forward and the backward pass.
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.count += 1
        return loss.detach()


@contextlib.contextmanager
def _enable_autocast(device: str, precision: str) -> Iterator[None]:
    dtype = _AUTOCAST.get(precision)
    # Without the cache of cast weights, as Lightning's plugin for mixed precision has it.
    with torch.autocast(device, dtype=dtype, cache_enabled=False) if dtype else contextlib.nullcontext():
        yield


def _compute_loss_difference(side: _CandidateTrial, base: _CandidateTrial) -> float:
    """Return the share by which a side's loss differs from `base`'s, over the steps that both have."""
    count = min(len(side.losses), len(base.losses))
    mean = fmean(base.losses[:count])
    return fmean(side.losses[:count]) / mean - 1 if mean else math.nan


def _move_to_device(value: object, device: str) -> Any:
    from lightning_fabric.utilities import move_data_to_device

    return move_data_to_device(value, torch.device(device))
