"""An average of the weights over the steps of a run: validated, saved and exported in their place.

Lightning's `WeightAveraging` swaps and saves them; what it lacks, or does wrong, is fixed here, with tests: it
copies the model before lazy layers have shapes and before the model is on its device, so that on CUDA the average is
on the host; it reads a counter from the device at every step; it averages whole numbers; until its first update it
validates the initial weights; a checkpoint of weights alone holds those that were not validated; its decay has
no warm-up; after a resume all ranks have the first one's buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mlscale.errors import MLScaleError
from mlscale.train.checkpoint import rank_buffers
from mlscale.train.strategies.full_state import TensorTree, get_local, is_sharded, shard_like

if TYPE_CHECKING:
    from pathlib import Path

Warmup = Literal["none", "timm", "tensorflow", "karras", "polyak"]
_AVERAGING, _CURRENT = "averaging_state", "current_model_state"  # Lightning's keys of a checkpoint


class EMA(WeightAveraging):
    """A callback that averages weights and floating-point buffers; integers, such as BatchNorm's count, are the latest.

    With β the decay, average ← β·average + (1 - β)·weights. At optimizer step t, counted from the first update:

    - none: β = `decay`.
    - timm: β = min(decay, 1 - (1 + t)^(-2/3)), as timm's ModelEmaV3 with `use_warmup`.
    - tensorflow: β = min(decay, (1 + t) / (10 + t)), as tf.train.ExponentialMovingAverage with `num_updates`.
    - karras: β = (1 - 1/t)^(γ + 1), the power function of Karras et al. 2023 (arXiv:2312.02696): the average covers the
      same part of a run of any length. `decay` is not used.
    - polyak: the plain mean of the weights since `start` (Polyak and Juditsky 1992): karras with γ = 0.

    Validation sees the average. In a checkpoint `state_dict` is the average, so evaluation, export and `init_from` take
    what was validated; the weights to continue training are `current_model_state`. After the fit the module holds the
    average. Before the first update the weights themselves are validated and saved.

    Args:
        decay: β of one optimizer step, 0 to 1.
        warmup: how β begins.
        every: optimizer steps between two updates, each by β^every, so that the average covers as many steps. One at
            every step would cost a step of a small model several per cent.
        start: optimizer steps before the first update.
        gamma: γ of karras; 6.94 averages over about a tenth of the run (σ_rel = 0.10).

    Raises:
        MLScaleError: a setting is out of range, or the weights are in 16 bits, which can't hold an average.
    """

    def __init__(
        self, decay: float = 0.999, warmup: Warmup = "timm", every: int = 10, start: int = 0, gamma: float = 6.94
    ) -> None:
        super().__init__()
        for name, good, why, fix in (
            ("decay", 0 <= decay <= 1, "it is what is kept of the average, 0 to 1", "0.999"),
            ("warmup", warmup in get_args(Warmup), f"it is one of {', '.join(get_args(Warmup))}", "timm"),
            ("every", every >= 1, "it counts optimizer steps", "10"),
            ("start", start >= 0, "it counts optimizer steps", "0"),
        ):
            if not good:
                raise _build_setting_error(name, locals()[name], why, fix)
        self.decay, self.warmup, self.every, self.start, self.gamma = decay, warmup, every, start, gamma
        self._loaded: Mapping[str, Any] | None = None
        self._own_buffers: Mapping[str, Tensor] = {}

    # Making it.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Do nothing yet: lazy layers have no shapes, and the model is not on its device."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        low = [name for name, value in pl_module.named_parameters() if value.dtype in (torch.bfloat16, torch.float16)]
        if low:
            raise MLScaleError(
                f"weights in 16 bits can't hold an average: 1 - {self.decay:g} of a difference is lost in rounding",
                where=f"callbacks.ema, {low[0]}",
                fix="precision=bf16, which keeps weights in 32 bits; or ~callbacks.ema",
            )
        average = self._average_model = WeightAverage(pl_module, self.compute_decay)
        if self._loaded is not None:
            average.load_state_dict(shard_like(self._loaded, average.state_dict()))
            rank_buffers.restore_buffers(self._own_buffers, average.module)
            self._loaded = None
        self._save_average_alone(trainer, pl_module)

    def _save_average_alone(self, trainer: Trainer, module: LightningModule) -> None:
        """Let weights-only saves hold the average: Lightning calls no callback for them, and would save weights that
        were not validated."""
        save = trainer.save_checkpoint

        def save_checkpoint(path: str | Path, weights_only: bool | None = None, *more: Any, **options: Any) -> None:
            # One function for both directions: swapping again puts the trained weights back.
            swap = partial(self._call_if_begun, self._swap_models, module) if weights_only else bool
            swap()
            try:
                save(path, weights_only, *more, **options)
            finally:
                swap()

        trainer.save_checkpoint = save_checkpoint  # type: ignore[method-assign,assignment]  # for this trainer alone

    # Each step.

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= self.start and (step_idx + 1) % self.every == 0

    def compute_decay(self, updates: int) -> float:
        """Return β of the next update, after `updates` of them; the first one copies the weights."""
        step = updates * self.every
        if self.warmup in ("karras", "polyak"):
            gamma = self.gamma if self.warmup == "karras" else 0.0
            return float((updates / (updates + 1)) ** (gamma + 1))
        decay = {
            "none": self.decay,
            "timm": min(self.decay, 1 - (1 + step) ** (-2 / 3)),
            "tensorflow": min(self.decay, (1 + step) / (10 + step)),
        }[self.warmup]
        return float(decay**self.every)

    # The average in place of the weights.

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._call_if_begun(super().on_validation_epoch_start, trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._call_if_begun(super().on_validation_epoch_end, trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._call_if_begun(super().on_train_end, trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the average into the module where a resumed run has no step left: `on_train_end` is not called then."""
        self._call_if_begun(self._copy_average_to_current, pl_module)

    def _call_if_begun(self, hook: Callable[..., None], *arguments: object) -> None:
        if self._average_model is not None and self._average_model.n_averaged > 0:
            hook(*arguments)

    # Saved and loaded.

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._call_if_begun(super().on_save_checkpoint, trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.training and _CURRENT in checkpoint and _AVERAGING in checkpoint:
            average = {f"module.{name}": value.clone() for name, value in checkpoint["state_dict"].items()}
            # Kept until `on_fit_start`: the average is built there, after lazy layers and the device are settled.
            self._loaded = average | checkpoint[_AVERAGING]
            pl_module.load_state_dict(checkpoint[_CURRENT])

    def rank_state(self) -> dict[str, Any]:
        """Return the averages of buffers that differ from the first rank's. A collective: every rank must call it."""
        alone = self._average_model is None or not torch.distributed.is_initialized()
        return {"buffers": {} if alone else rank_buffers.collect_own_buffers(self._average_model.module)}  # type: ignore[union-attr]

    def load_rank_states(self, states: Sequence[Mapping[str, Any] | None], trainer: Trainer) -> None:
        own = states[trainer.global_rank] if len(states) == trainer.world_size else None
        self._own_buffers = own["buffers"] if own is not None else {}


class WeightAverage(AveragedModel):
    """torch's `AveragedModel` with the same state, which collects the model's tensors once and not at every step.

    Args:
        module: the model, on its device.
        compute_decay: β by the number of updates before.
    """

    def __init__(self, module: nn.Module, compute_decay: Callable[[int], float]) -> None:
        # A sharded module can't be copied; its tensors can.
        copied = TensorTree(module) if is_sharded(module) else module
        super().__init__(copied, use_buffers=True)  # its counter stays on the CPU: reading it waits for no device
        self.requires_grad_(False)
        self._compute_decay = compute_decay
        self._weights = [get_local(value) for value in module.parameters()]
        # A model may put another tensor in a buffer's place: it is read by name at each update.
        self._buffers_of = [(part._buffers, name) for part in module.modules() for name in part._buffers]
        own = [*self.module.parameters(), *(part._buffers[n] for part in self.module.modules() for n in part._buffers)]
        self._own = [
            (None if value is None else get_local(value), value is not None and value.is_floating_point())
            for value in own
        ]

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        now = [*self._weights, *(buffers[name] for buffers, name in self._buffers_of)]
        decay = self._compute_decay(int(self.n_averaged)) if self.n_averaged else 0.0
        averaged, taken = [], []
        for (own, floats), value in zip(self._own, now, strict=True):
            if own is not None and value is not None:
                if floats and decay:
                    averaged.append(own)
                    taken.append(value)
                else:
                    own.copy_(value)
        if averaged:
            # One call for all tensors, in place of a kernel launch for each.
            torch._foreach_lerp_(averaged, taken, 1 - decay)
        self.n_averaged += 1


def _build_setting_error(name: str, value: object, why: str, instead: str) -> MLScaleError:
    where = f"callbacks.ema.{name}"
    return MLScaleError(f"{where} is {value}", where=where, why=why, fix=f"{where}={instead}")
