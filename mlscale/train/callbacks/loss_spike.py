"""Loss spikes: a loss far above those before it is reported with the samples of its batch."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from mlscale.errors import Exit, MLScaleError
from mlscale.train.callbacks.train_metrics import find_train_metrics
from mlscale.train.lightning.trainer_parts import get_log_interval
from mlscale.train.step_loss import get_detached_loss

_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_SHOWN = 8  # sample keys in a message


class PendingLoss(NamedTuple):
    """A loss that was not checked yet, with the facts for a message if it is a spike."""

    loss: Tensor
    step: int
    epoch: int
    batch_idx: int
    keys: Any


class LossSpike(Callback):
    """A callback that warns of a training loss above median + k · 1.4826 · MAD of the last `window` losses.

    The warning names the step and the samples of its batch.

    MAD is the median absolute deviation, 1.4826 of which is the standard deviation of a normal distribution (Hampel
    1974): neither moves when a spike enters the window. A loss must also be `least` of the median above it, so that a
    loss that hardly moves has no spikes. Spikes that follow each other are one. Each rank checks its own losses.

    ``train/loss_spikes`` counts them, in the entries of `TrainMetrics` (the first rank's) and in the run's table (all).
    On an accelerator losses are read together, every `trainer.log_every_n_steps` batches, so the host does not wait.

    Args:
        k: how many standard deviations above the median.
        window: how many earlier losses count; a quarter of them must exist before anything is reported.
        least: the least rise, as a part of the median.
        stop: whether to end the run with exit code 3; otherwise it warns.
    """

    def __init__(self, k: float = 10.0, window: int = 100, least: float = 0.5, stop: bool = False) -> None:
        if k <= 0 or window < 8 or least < 0:
            raise MLScaleError(
                f"callbacks.loss_spike has k={k:g}, window={window}, least={least:g}",
                where="callbacks.loss_spike",
                why="k is above 0, a window holds 8 losses or more, least is 0 or more",
                fix="callbacks.loss_spike.k=10 callbacks.loss_spike.window=100 callbacks.loss_spike.least=0.5",
            )
        self.k, self.least, self.stop = k, least, stop
        self.window = window | 1  # odd: then a median is one of the losses
        self.spikes = 0
        self._inside = False  # the last loss was one
        self._losses: deque[float] = deque()
        self._sorted: list[float] = []
        self._pending: list[PendingLoss] = []
        self._trainer: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        find_train_metrics("loss_spike", trainer)
        self._trainer = trainer

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if (loss := get_detached_loss(outputs)) is None:
            return
        if loss.is_cpu:
            if self.is_spike(value := loss.item()):
                self._report_spike(_create_pending(loss, trainer, batch, batch_idx), value)
            return
        self._pending.append(_create_pending(loss, trainer, batch, batch_idx))
        if len(self._pending) >= max(get_log_interval(trainer), 1):
            self._check_pending()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_pending()
        several = trainer.world_size > 1
        pl_module.log("train/loss_spikes", float(self.spikes), logger=False, sync_dist=several, reduce_fx="sum")

    def entry(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Return the number of spikes so far."""
        return {"train/loss_spikes": self.spikes}

    def is_spike(self, loss: float) -> bool:
        """Return whether `loss` begins a spike, and add it to the window."""
        if not isfinite(loss):  # left to callbacks.nonfinite
            return False
        above = self._is_above(loss)
        begins, self._inside = above and not self._inside, above
        insort(self._sorted, loss)
        self._losses.append(loss)
        if len(self._losses) > self.window:
            # The oldest loss leaves both; of equal values any one will do.
            del self._sorted[bisect_left(self._sorted, self._losses.popleft())]
        return begins

    def _is_above(self, loss: float) -> bool:
        """Return whether loss - median > k · 1.4826 · MAD."""
        count = len(self._sorted)
        if count < self.window // 4:
            return False
        median = self._sorted[count // 2]
        if loss - median <= self.least * abs(median):
            return False
        # The MAD is not computed: it is below r where more than half of the losses are within r of the median, and two
        # searches in the sorted window count those.
        reach = (loss - median) / (self.k * _MAD_TO_SIGMA)
        within = bisect_left(self._sorted, median + reach) - bisect_right(self._sorted, median - reach)
        return within > count // 2

    def _check_pending(self) -> None:
        pending, self._pending = self._pending, []
        for entry in pending:
            value = entry.loss.item()
            if self.is_spike(value):
                self._report_spike(entry, value)

    def _report_spike(self, seen: PendingLoss, value: float) -> None:
        self.spikes += 1
        trainer, passes = self._trainer, self._trainer.accumulate_grad_batches
        median = self._sorted[len(self._sorted) // 2]
        rank = f", rank {trainer.global_rank}" if trainer.world_size > 1 else ""
        what = (
            f"the loss is {value * passes:.4g}, {_compare_with_median(value, median, passes)} "
            f"of the last {len(self._losses)}, in epoch {seen.epoch}, batch {seen.batch_idx} "
            f"(optimizer step {seen.step}{rank})"
        )
        names = [] if seen.keys is None else [str(key) for key in seen.keys]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        samples = f"its samples: {', '.join(names[:_SHOWN])}{more}" if names else ""
        if self.stop:
            raise MLScaleError(
                what,
                where="callbacks.loss_spike",
                why=samples,
                fix="optimizer.lr=<a smaller one>\ntrainer.gradient_clip_val=1\ncallbacks.loss_spike.stop=false",
                exit=Exit.DIVERGED,
            )
        tqdm.write(f"warning   {what}{'; ' + samples if samples else ''}", file=sys.stderr)

    def rank_state(self) -> dict[str, Any]:
        """Return this rank's window and count; losses that wait on the device are checked first."""
        self._check_pending()
        return {"losses": list(self._losses), "spikes": self.spikes, "inside": self._inside}

    def load_rank_states(self, states: Sequence[Mapping[str, Any] | None], trainer: Trainer) -> None:
        saved = [state for state in states if state is not None]
        if len(saved) == trainer.world_size:
            own = saved[trainer.global_rank]
            self._losses = deque(own["losses"])
            self._sorted = sorted(self._losses)
            self.spikes, self._inside = own["spikes"], own["inside"]
        elif saved and trainer.global_rank == 0:
            # On another number of ranks the windows fit no rank. The table has the sum over ranks: one takes it all.
            self.spikes = sum(state["spikes"] for state in saved)


def _compare_with_median(value: float, median: float, passes: int) -> str:
    """Return the loss compared with the median, as text; a ratio only where the median is above 0."""
    return f"{value / median:.3g}× the median" if median > 0 else f"compared with a median of {median * passes:.4g}"


def _create_pending(loss: Tensor, trainer: Trainer, batch: object, batch_idx: int) -> PendingLoss:
    keys = batch.get("key") if isinstance(batch, Mapping) else None
    return PendingLoss(loss, trainer.global_step, trainer.current_epoch, batch_idx, keys)
