"""Learning-rate schedules that hold for runs of any length."""

from math import cos, pi
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from mlscale.errors import MLScaleError


class OneCycle(OneCycleLR):
    """Warm-up, then down to nearly nothing (Smith 2018), as torch's OneCycleLR.

    torch's divides by zero where the warm-up is exactly one step long, as that of a short trial is. Here such a run
    starts at the top.

    Args:
        optimizer: whose rates it sets.
        max_lr: the learning rate at the top; of each group of parameters, where several are given.
        total_steps: optimizer steps of the whole run.
        pct_start: the part of the run that warms up, from 0 and below 1.
        cycle_momentum: whether the momentum goes the other way, of an optimizer that has one.
        anneal_strategy, base_momentum, max_momentum, div_factor, final_div_factor, three_phase: as torch's.

    Raises:
        MLScaleError: the warm-up is negative, or leaves no step for the decay.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        if not 0 <= pct_start < 1:
            raise _make_schedule_error("pct_start", pct_start, "it is the part of the run that warms up, below 1")
        for name, divisor in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if not divisor > 0:
                raise _make_schedule_error(name, divisor, "the rate is divided by it: above 0")
        super().__init__(
            optimizer,
            max_lr,
            total_steps=total_steps,
            # torch divides by (pct_start · total_steps - 1).
            pct_start=0.0 if pct_start * total_steps == 1 else float(pct_start),
            anneal_strategy=anneal_strategy,
            # Adagrad and others have none.
            cycle_momentum=cycle_momentum and not {"momentum", "betas"}.isdisjoint(optimizer.defaults),
            base_momentum=base_momentum,
            max_momentum=max_momentum,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            three_phase=three_phase,
        )


class Warmup(LRScheduler):
    """Up along a line, then down: by a cosine (Loshchilov and Hutter 2016, without restarts), by a line, or not at all.

    Step t of T, counted from 0, with W steps of warm-up: (t + 1) / W of the rate while t < W, so that the first step
    learns something; then down from the whole rate at t = W to `final` of it at t = T, one past the last. Without a
    warm-up the cosine is torch's CosineAnnealingLR. Every parameter group keeps its own rate.

    Args:
        optimizer: whose rates it sets.
        total_steps: T, optimizer steps of the whole run.
        warmup: W: below 1 the part of the run that warms up, else optimizer steps; a shorter run ends on the way up.
        shape: cosine, linear or constant: the form of the decay.
        final: the part of the rate that is left at the end, 0 to 1.

    Raises:
        MLScaleError: the warm-up is below 0, or `final` is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: float = 0.05,
        shape: Literal["cosine", "linear", "constant"] = "cosine",
        final: float = 0.0,
    ) -> None:
        if warmup < 0:
            raise _make_schedule_error("warmup", warmup, "below 1 it is the part of the run, else optimizer steps")
        if not 0 <= final <= 1:
            raise _make_schedule_error("final", final, "it is a part of the learning rate, 0 to 1")
        self.total_steps = total_steps
        self.warmup_steps = round(warmup * total_steps if warmup < 1 else warmup)
        self.shape = shape
        self.final = final
        # Last: torch's constructor takes the first step, which calls `get_lr`.
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each parameter group at this step."""
        return [float(base) * self._compute_factor(self.last_epoch) for base in self.base_lrs]

    def _compute_factor(self, step: int) -> float:
        if step < self.warmup_steps:
            # Step 0 has a rate above 0: a step without one would learn nothing.
            return (step + 1) / self.warmup_steps
        if self.shape == "constant":
            return 1.0
        # At most 1: steps beyond `total_steps` keep the final rate.
        done = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        left = 1 - done if self.shape == "linear" else (1 + cos(pi * done)) / 2
        return self.final + (1 - self.final) * left


def _make_schedule_error(name: str, value: float, why: str) -> MLScaleError:
    fix = f"scheduler.{name}={value / 100:g}" if 1 < value < 100 else ""  # percent
    error = MLScaleError(f"scheduler.{name} is {value}", where=f"scheduler.{name}", why=why, fix=fix)
    error.unbuilt = True
    return error
