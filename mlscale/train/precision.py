"""The precision of numbers and the memory layout of images that a run computes with.

float16 training with a loss scale: counts skipped steps, holds the schedule, and ends a run that diverges.

Gradients in float16 underflow; so the loss is scaled up, and a step whose gradients overflow is skipped and the scale
halved (Micikevicius et al. 2018, arXiv:1710.03740). torch's GradScaler does that and Lightning calls it; here skipped
steps are counted, do not advance the schedule, and end the run where they do not stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from torch.nn.parameter import is_lazy

from mlscale.errors import Exit, MLScaleError
from mlscale.train.checkpoint.save_messages import describe_kept_checkpoints, list_saved_checkpoints
from mlscale.train.lightning import patches as lightning_patches
from mlscale.train.lightning.trainer_parts import get_log_interval

if TYPE_CHECKING:
    from lightning_fabric.utilities.types import Optimizable

FORMATS = {"channels_last": torch.channels_last, "channels_last_3d": torch.channels_last_3d}
"""Layouts by name; each is for tensors of one number of dimensions."""
_DIMENSIONS = {"channels_last": 4, "channels_last_3d": 5}
_SCALED = "16-mixed"
_MIXED_SETTINGS = ("loss_scale", "growth_interval", "max_skipped")


def create_precision_plugin(settings: Mapping[str, Any], accelerator: str) -> Precision | None:
    """Return a built-in plugin in place of Lightning's, where it counts skipped steps; else None.

    Args:
        settings: of the group `precision`.
        accelerator: cpu, cuda or mps.
    """
    if settings["value"] != _SCALED or accelerator not in ("cpu", "cuda"):
        return None
    return Mixed(accelerator, **{key: settings[key] for key in _MIXED_SETTINGS if settings.get(key) is not None})


def set_memory_layout(task: LightningModule, name: str | None) -> None:
    """Set the memory layout of convolutions' weights, which their outputs take over.

    Args:
        name: a key of `FORMATS`; None leaves them as they are.
    """
    if not name:
        return
    for parameter in task.parameters():
        # A lazy weight has no dimensions yet. `.data`: the parameter stays the same object.
        if not is_lazy(parameter) and parameter.dim() == _DIMENSIONS[name]:
            parameter.data = parameter.data.contiguous(memory_format=FORMATS[name])


class Mixed(MixedPrecision):
    """Lightning's 16-mixed, on CUDA devices and, for tests and comparisons, on a CPU.

    Lightning itself would compute in bfloat16 on a CPU. torch computes float16 there, slowly: no CPU of today has units
    for the convolutions.

    Args:
        device: cuda or cpu.
        loss_scale: the initial scale.
        growth_interval: steps without overflow after which it doubles.
        max_skipped: skipped steps in a row after which the run has diverged.

    Attributes:
        skipped: steps that were skipped in the whole run.
        in_a_row: of these, those since the last step that was taken.
    """

    def __init__(
        self, device: str, loss_scale: float = 65536.0, growth_interval: int = 2000, max_skipped: int = 20
    ) -> None:
        scaler = torch.amp.GradScaler(device, init_scale=loss_scale, growth_interval=growth_interval)
        super().__init__("16-mixed", device, scaler)
        self.max_skipped = max_skipped
        self.skipped = self.in_a_row = 0

    @property
    def scale(self) -> float:
        """The factor by which the next loss is multiplied."""
        assert self.scaler is not None
        return float(self.scaler.get_scale())

    def optimizer_step(  # type: ignore[override]  # as Lightning's own
        self, optimizer: Optimizable, model: LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        """Take the step, or skip it.

        Raises:
            MLScaleError: `max_skipped` steps in a row were skipped (exit code 3). The weights are those before them.
        """
        before = self.scale
        result = super().optimizer_step(optimizer, model=model, closure=closure, **kwargs)
        if self.scale < before:  # the scaler halves it where it skips, and there alone
            self.skipped += 1
            self.in_a_row += 1
            # It counts as a step: otherwise torch warns of schedules that go by epochs.
            optimizer._opt_called = True  # type: ignore[attr-defined]
            if self.in_a_row >= self.max_skipped:
                raise _build_divergence_error(self, model.trainer)
        else:
            self.in_a_row = 0
        return result

    def state_dict(self) -> dict[str, Any]:
        return {"scaler": super().state_dict(), "skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A checkpoint of Lightning's own plugin has the scaler's state without a key around it.
        super().load_state_dict(state_dict.get("scaler", state_dict))
        self.skipped, self.in_a_row = state_dict.get("skipped", 0), state_dict.get("in_a_row", 0)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the scale from a checkpoint that Lightning's own plugin wrote."""
        if (state := checkpoint.get(MixedPrecision.__qualname__)) and type(self).__qualname__ not in checkpoint:
            self.load_state_dict(state)


class LossScale(Callback):
    """A callback that logs ``train/loss_scale`` and ``train/skipped_steps``, and holds the schedule where a step was
    skipped.

    Entries are every `trainer.log_every_n_steps` optimizer steps for the trackers, and at each epoch's end for all.

    Args:
        plugin: of the trainer.
    """

    def __init__(self, plugin: Mixed) -> None:
        self.plugin = plugin
        self._logged = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            lightning_patches.hold_schedule(trainer, lambda: self.plugin.in_a_row > 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._logged = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        every: int = get_log_interval(trainer)
        step = trainer.global_step
        if every and step != self._logged and step % every == 0:
            self._logged = step
            for logger in trainer.loggers:
                logger.log_metrics(self._collect_metrics(), step - 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        several = trainer.world_size > 1  # all ranks have the same: gradients are summed up before they are checked
        every: int = get_log_interval(trainer)
        logged_already = bool(every) and trainer.global_step % every == 0  # the trackers have this step's already
        pl_module.log_dict(self._collect_metrics(), logger=not logged_already, sync_dist=several, reduce_fx="max")

    def _collect_metrics(self) -> dict[str, float]:
        return {"train/loss_scale": self.plugin.scale, "train/skipped_steps": float(self.plugin.skipped)}


def _build_divergence_error(plugin: Mixed, trainer: Trainer) -> MLScaleError:
    why = f"the loss scale has come down to {plugin.scale:g}, and gradients still overflow; "
    return MLScaleError(
        f"{plugin.in_a_row} optimizer steps in a row were skipped, up to step {trainer.global_step}",
        where="precision",
        why=why + describe_kept_checkpoints(list_saved_checkpoints(trainer)),
        fix="precision=bf16\nprecision=fp32\ntrainer.gradient_clip_val=1\noptimizer.lr=<a smaller one>",
        exit=Exit.DIVERGED,
    )
