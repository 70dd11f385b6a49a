"""The precision of numbers and the memory layout of images that a run computes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.precision import Precision
from torch.nn.parameter import is_lazy

from mlscale.train.loss_scaling import Mixed

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
