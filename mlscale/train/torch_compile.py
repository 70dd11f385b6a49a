"""torch.compile of a task's model, and how precisely float32 is multiplied on CUDA."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn


class Compile(Callback):
    """A callback that compiles `module.model` before the first step, when shapes are known and weights are loaded.

    It is done in place: names of weights, hooks and `isinstance` stay, and a copy of the model is not compiled. torch
    skips its own containers when they are compiled in place (a bare `nn.Sequential`); such a model is wrapped, and
    `compiled_names.py` keeps the names of its weights.

    Args:
        mode: torch.compile's; None for its default.
    """

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        compile_model(pl_module, self.mode)


def compile_model(task: Any, mode: str | None = None) -> None:
    """Let the model of `task` be compiled at its next call."""
    model: nn.Module = task.model
    # torch's own containers have to be wrapped, see `Compile`.
    if type(model).__module__.startswith("torch.nn."):
        task.model = torch.compile(model, mode=mode)
    else:
        model.compile(mode=mode)


def set_tf32(allowed: bool | None) -> None:
    """Set whether float32 matrix products and convolutions on CUDA may round inputs to TF32 (10 bits of mantissa).

    Args:
        allowed: None leaves torch's own choice: convolutions may, matrix products may not.
    """
    if allowed is not None:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed
