"""The norm of the gradient, by which clipping decides, and the first sign of a run that will diverge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from mlscale.train.callbacks.train_metrics import TrainMetrics, find_train_metrics
from mlscale.train.strategies.full_state import compute_norms
from mlscale.train.torch_compile import get_uncompiled_name


class GradNorm(Callback):
    """A callback that adds ``train/grad_norm``, the L2 norm of a step's whole gradient, to `TrainMetrics` entries.

    It is that of all parameters together, over all ranks and accumulated passes, unscaled and before clipping. The mean
    over an epoch's entries is in the run's table, without those of steps that a loss scaler has skipped, which are
    not finite. Between two entries a step costs one comparison.

    Args:
        per_layer: whether to write the norm of each layer, too, as ``train/grad_norm/<layer>``: of each module that
            has parameters of its own.
    """

    def __init__(self, per_layer: bool = False) -> None:
        self.per_layer = per_layer
        self._metrics: TrainMetrics | None = None
        self._norms: dict[str, Tensor] = {}  # of this step, on the device
        self._sum, self._count = 0.0, 0  # of the epoch
        self._restored = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._metrics = find_train_metrics("grad_norm", trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sum, self._count = 0.0, 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        # Lightning calls this hook after unscaling and before clipping.
        if self._metrics is not None and self._metrics.is_entry_next(trainer):
            self._norms = compute_grad_norms(pl_module, per_layer=self.per_layer)

    def entry(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Return the norms of the step that was just taken; an empty dict where no parameter has a gradient."""
        tensors, self._norms = self._norms, {}
        if not tensors:
            return {}
        # Stacked: one transfer from the device for all of them.
        values = dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True))
        if isfinite(norm := values["train/grad_norm"]):
            self._sum, self._count = self._sum + norm, self._count + 1
        return values

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._count:
            # Every rank has the same value already.
            sync: dict[str, Any] = {"sync_dist": trainer.world_size > 1, "reduce_fx": "max"}
            pl_module.log("train/grad_norm", self._sum / self._count, logger=False, **sync)

    def rank_state(self) -> dict[str, Any]:
        """Return the epoch's sum and count."""
        return {"sum": self._sum, "count": self._count}

    def load_rank_states(self, states: Sequence[Mapping[str, Any] | None], trainer: Trainer) -> None:
        if states and states[0] is not None:  # every rank has the same
            self._sum, self._count = states[0]["sum"], states[0]["count"]


def compute_grad_norms(module: torch.nn.Module, *, per_layer: bool = False) -> dict[str, Tensor]:
    """Return the L2 norms of `module`'s gradients, float32 scalars on the device: of all, and per layer if set."""
    named = [(name, _convert_to_dense(part.grad)) for name, part in module.named_parameters() if part.grad is not None]
    if not named:
        return {}
    parameter_norms = compute_norms([grad for _, grad in named])
    grad_norms = {"train/grad_norm": torch.linalg.vector_norm(torch.stack(parameter_norms))}
    if per_layer:
        layers: dict[str, list[Tensor]] = {}
        for (name, _), norm in zip(named, parameter_norms, strict=True):
            layers.setdefault(get_uncompiled_name(name).rpartition(".")[0] or name, []).append(norm)
        grad_norms |= {
            f"train/grad_norm/{layer}": torch.linalg.vector_norm(torch.stack(n)) for layer, n in layers.items()
        }
    return grad_norms


def _convert_to_dense(grad: Tensor) -> Tensor:
    # Coalesced: an index may occur several times, and the norm is that of the sums.
    return grad.coalesce().values() if grad.is_sparse else grad
