"""Learning-rate schedules that hold for runs of any length."""

from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR


class OneCycle(OneCycleLR):
    """Warm-up, then down to nearly nothing (Smith 2018), as torch's OneCycleLR.

    torch's divides by zero where the warm-up is exactly one step long, as that of a short trial is. Here such a run
    starts at the top.

    Args:
        optimizer: what it steps.
        max_lr: the learning rate at the top; of each group of parameters, where several are given.
        total_steps: optimizer steps of the whole run.
        pct_start: the part of the run that warms up, 0 to 1.
        anneal_strategy, cycle_momentum, base_momentum, max_momentum, div_factor, final_div_factor, three_phase: as
            torch's.
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
        super().__init__(
            optimizer,
            max_lr,
            total_steps=total_steps,
            pct_start=0.0 if pct_start * total_steps == 1 else pct_start,
            anneal_strategy=anneal_strategy,
            cycle_momentum=cycle_momentum,
            base_momentum=base_momentum,
            max_momentum=max_momentum,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            three_phase=three_phase,
        )
