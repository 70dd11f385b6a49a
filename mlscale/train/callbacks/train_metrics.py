"""The training metrics of every tracker: loss, learning rate, throughput and memory.

The loss of a training step, without waiting for the device.
"""

import time
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from mlscale.errors import MLScaleError
from mlscale.tasks.batch import get_batch_size
from mlscale.train.checkpoint.step_boundary import is_in_epoch
from mlscale.train.lightning.trainer_parts import get_callbacks, get_log_interval
from mlscale.train.process_memory import measure_peak_bytes

_COLLAPSE = 256  # losses kept apart; more are added up, on the device and without waiting for it


class TrainMetrics(Callback):
    """A callback that logs, every `trainer.log_every_n_steps` optimizer steps and for all ranks together:

    - ``train/loss``: its mean since the last entry, where training steps return one: a module that optimizes manually
      need not, and then logs its own,
    - ``train/lr``: of the first parameter group,
    - ``train/samples_per_s``: over the time since the last entry, validation left out,
    - ``train/tokens_per_s``: the same for batches of tokens (whole numbers of shape (n, length)), padding among them,
    - the values of other callbacks: each that has a method ``entry``, of (trainer, module), gives `{name: value}`;

    and once an epoch ``train/loss_epoch``, the mean of the epoch, and ``train/peak_memory_gib``, the most that a
    process has used (allocated on the device for CUDA, resident otherwise). Callbacks that monitor ``train/loss`` get
    the epoch's mean. Entries carry the index of the optimizer step, counted from 0, as Lightning's own do.

    An epoch (or a run) of fewer steps than the interval has one entry, at its end.

    A step costs a list append: losses stay on the device until an entry is due.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._counted = 0  # batches that gave a loss
        self._batches = 0
        self._samples = 0
        self._tokens = 0
        self._reads_tokens: bool | None = None  # known from the first batch
        self._contributors: list[Any] = []
        self._logged_step = 0
        self._seconds = 0.0  # of training since the last entry, up to `_resumed`
        self._resumed = 0.0
        self._epoch_loss: Tensor | None = None  # sum over the epoch's optimizer steps
        self._epoch_counted: Tensor | None = None
        self._epoch_steps = 0
        self._restored: Mapping[str, Any] | None = None

    @property
    def has_loss(self) -> bool:
        """True if training steps of this epoch have given a loss, so that ``train/loss`` is logged at its end."""
        return self._counted > 0 or (self._epoch_counted is not None and bool(self._epoch_counted.item()))

    def rank_state(self) -> dict[str, Any]:
        """Return the sums of this rank in the epoch that are not logged yet."""
        return {
            "losses": torch.stack(self._losses).cpu() if self._losses else None,
            "counted": self._counted,
            "batches": self._batches,
            "samples": self._samples,
            "tokens": self._tokens,
            "logged_step": self._logged_step,
            "epoch_loss": None if self._epoch_loss is None else self._epoch_loss.cpu(),
            "epoch_counted": None if self._epoch_counted is None else self._epoch_counted.cpu(),
            "epoch_steps": self._epoch_steps,
        }

    def load_rank_states(self, states: Sequence[Mapping[str, Any] | None], trainer: Trainer) -> None:
        """Restore the sums. On another number of ranks the first takes over those of all."""
        saved = [state for state in states if state is not None]
        if len(saved) == trainer.world_size:
            self._restored = saved[trainer.global_rank]
        elif saved:
            # `_close_interval` divides each sum by the number of ranks: that of the old ranks is scaled to the
            # new number.
            losses = [state["losses"].double().sum() for state in saved if state["losses"] is not None]
            mean = torch.stack(losses).sum() / len(saved) * trainer.world_size if losses else None
            first = trainer.global_rank == 0
            self._restored = {
                **saved[0],
                "losses": mean.reshape(1) if mean is not None and first else None,
                "counted": sum(_count_losses(state) for state in saved) if first else 0,
                "samples": sum(state["samples"] for state in saved) if first else 0,
                "tokens": sum(state.get("tokens", 0) for state in saved) if first else 0,
            }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _shorten_log_interval(trainer)
        self._contributors = [callback for callback in get_callbacks(trainer) if hasattr(callback, "entry")]
        self._reset_sums(trainer)
        restored, self._restored = self._restored, None
        if restored is not None and is_in_epoch(trainer):
            device = trainer.strategy.root_device
            if restored["losses"] is not None:
                self._losses = list(restored["losses"].to(device))
            if restored["epoch_loss"] is not None:
                self._epoch_loss = restored["epoch_loss"].to(device)
                counted = restored.get("epoch_counted")  # older checkpoints have none, and had losses
                self._epoch_counted = torch.ones_like(self._epoch_loss) if counted is None else counted.to(device)
            self._batches, self._samples = restored["batches"], restored["samples"]
            self._counted = _count_losses(restored)
            self._tokens = restored.get("tokens", 0)
            self._logged_step, self._epoch_steps = restored["logged_step"], restored["epoch_steps"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset_sums(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        # Kept on the device: reading a loss here would make the host wait for the step.
        if (loss := get_detached_loss(outputs)) is not None:
            self._losses.append(loss)
            self._counted += 1
        self._batches += 1
        self._samples += get_batch_size(batch)
        if self._reads_tokens is None:
            self._reads_tokens = _is_tokens(batch)
        if self._reads_tokens:
            self._tokens += batch["x"].numel()
        every: int = get_log_interval(trainer)
        # `global_step` is read through several properties: only when an entry can be due.
        if 0 < every <= self._batches and trainer.global_step - self._logged_step >= every:
            self._log_entry(trainer, pl_module)
        elif len(self._losses) >= _COLLAPSE:
            self._losses = [torch.stack(self._losses).sum()]

    def is_entry_next(self, trainer: Trainer) -> bool:
        """Return whether an entry will be written once the optimizer step in progress is taken."""
        every: int = get_log_interval(trainer)
        return 0 < every <= self._batches + 1 and trainer.global_step + 1 - self._logged_step >= every

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds += time.perf_counter() - self._resumed

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resumed = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_interval(trainer)
        # Every rank has the same value already: "max" keeps it exact for any number of ranks.
        sync: dict[str, Any] = {"sync_dist": trainer.world_size > 1, "reduce_fx": "max"}
        pl_module.log("train/peak_memory_gib", measure_peak_bytes(trainer.strategy.root_device) / 2**30, **sync)
        if self._epoch_loss is not None and self._epoch_counted is not None and self._epoch_counted.item():
            mean = self._compute_mean_loss(self._epoch_loss, self._epoch_counted, self._epoch_steps, trainer).float()
            pl_module.log("train/loss_epoch", mean, **sync)
            pl_module.log("train/loss", mean, logger=False, **sync)

    def _reset_sums(self, trainer: Trainer) -> None:
        self._losses.clear()
        self._batches = self._counted = self._samples = self._tokens = self._epoch_steps = 0
        self._seconds, self._epoch_loss, self._epoch_counted = 0.0, None, None
        self._logged_step = trainer.global_step
        self._resumed = time.perf_counter()

    def _close_interval(self, trainer: Trainer) -> tuple[Tensor, int]:
        """Close the interval; returns the sums over all ranks of (losses / ranks, samples, tokens, losses counted), and
        its optimizer steps."""
        steps = trainer.global_step - self._logged_step
        device = trainer.strategy.root_device
        # MPS has no float64; elsewhere it keeps counts exact beyond float32's 2^24. One tensor: one collective for all.
        sums = torch.zeros(4, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        if self._losses:
            sums[0] = torch.stack(self._losses).sum() / trainer.world_size
        sums[1], sums[2], sums[3] = self._samples, self._tokens, self._counted
        if trainer.world_size > 1:
            dist.all_reduce(sums)
        self._epoch_loss = sums[0] if self._epoch_loss is None else self._epoch_loss + sums[0]
        self._epoch_counted = sums[3] if self._epoch_counted is None else self._epoch_counted + sums[3]
        self._epoch_steps += steps
        self._logged_step += steps
        self._losses.clear()
        self._batches = self._counted = self._samples = self._tokens = 0
        return sums, steps

    def _compute_mean_loss(self, loss: Tensor, counted: Tensor, steps: int, trainer: Trainer) -> Tensor:
        """Return the mean loss of an optimizer step; by manual optimization, where a batch has several, of a batch."""
        if trainer.lightning_module.automatic_optimization:
            return loss / max(steps, 1)
        return loss * trainer.world_size / counted

    def _log_entry(self, trainer: Trainer, module: LightningModule) -> None:
        sums, steps = self._close_interval(trainer)
        _, samples, tokens, counted = sums.tolist()  # the one moment that waits for the device
        now = time.perf_counter()
        seconds, self._seconds, self._resumed = self._seconds + now - self._resumed, 0.0, now
        loss = {"train/loss": self._compute_mean_loss(sums[0], sums[3], steps, trainer).item()} if counted else {}
        metrics = {
            **loss,
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train/samples_per_s": samples / seconds,
            "epoch": trainer.current_epoch,
        }
        if self._reads_tokens:
            metrics["train/tokens_per_s"] = tokens / seconds
        for callback in self._contributors:
            metrics |= callback.entry(trainer, module)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, self._logged_step - 1)


def _shorten_log_interval(trainer: Trainer) -> None:
    """Shorten the interval between entries, so that an epoch with fewer steps has an entry at its end."""
    steps = [get_log_interval(trainer)]
    if isfinite(trainer.num_training_batches):
        # Rounded up: the last batches of an epoch are a step even where they do not fill an accumulation.
        steps.append(-(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches))
    if trainer.max_steps > 0:
        steps.append(trainer.max_steps)
    trainer.log_every_n_steps = min(steps) if get_log_interval(trainer) else 0  # type: ignore[attr-defined]


def _count_losses(state: Mapping[str, Any]) -> int:
    """Return the batches that gave a loss; older checkpoints do not hold the count, only losses or none."""
    return int(state.get("counted", state["losses"] is not None))


def _is_tokens(batch: object) -> bool:
    x = batch.get("x") if isinstance(batch, Mapping) else None
    return isinstance(x, Tensor) and x.ndim == 2 and not x.is_floating_point()


def find_train_metrics(callback: str, trainer: Trainer) -> TrainMetrics:
    """Return the callback into whose entries `callback` writes.

    Raises:
        MLScaleError: the trainer has none.
    """
    train_metrics = next((other for other in get_callbacks(trainer) if isinstance(other, TrainMetrics)), None)
    if train_metrics is None:
        refused = MLScaleError(
            f"callbacks.{callback} writes into the entries of callbacks.metrics, which is off",
            where="callbacks",
            fix=f"callbacks=[default,{callback}]",
        )
        refused.unbuilt = True
        raise refused
    return train_metrics


def get_detached_loss(outputs: object) -> Tensor | None:
    """Return the detached loss in the outputs that Lightning passes to `on_train_batch_end`; None for a skipped step.

    Lightning divides it by the accumulation: the losses of an optimizer step's forward passes add up to its loss.
    """
    if isinstance(outputs, Mapping):
        outputs = outputs.get("loss")
    if not isinstance(outputs, Tensor):
        return None
    # By automatic optimization Lightning has detached it already.
    return outputs.detach() if outputs.requires_grad else outputs
