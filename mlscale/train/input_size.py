"""Images that a model can't take: detected after a failed fit, by the model's own forward on images of that size."""

from __future__ import annotations

import torch
from pytorch_lightning import LightningModule

from mlscale.errors import MLScaleError
from mlscale.tasks.base import Task
from mlscale.train.process_memory import is_out_of_memory

_SHAPE_ERRORS = (RuntimeError, AssertionError)
"""The errors that torch and model libraries raise for shapes, among others."""


def explain_unsuited_input(error: BaseException, task: LightningModule, data: object) -> MLScaleError | None:
    """Return the error to report when `error` means that the model can't take images of the data's size, else None.

    Args:
        task: whose fit failed. The input that a third-party task gives its model is not known.
        data: the data module, which knows its `facts`.
    """
    is_other = isinstance(error, NotImplementedError) or is_out_of_memory(error)
    if not isinstance(task, Task) or not isinstance(error, _SHAPE_ERRORS) or is_other:
        return None
    facts = data.facts() if hasattr(data, "facts") else None
    if facts is None or not (facts.height and facts.width and facts.channels):
        return None
    parameter = next(task.model.parameters(), torch.empty(0))
    images = torch.zeros(2, facts.channels, facts.height, facts.width, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad():
            task.model.train()(images)
        return None
    except Exception as cause:
        built = getattr(getattr(task.model, "patch_embed", None), "img_size", None)  # of a vision transformer of timm
        size = max(built) if isinstance(built, tuple) else "<one that it takes, such as 224>"
        return MLScaleError(
            f"{type(task.model).__name__} can't take images of {facts.height}×{facts.width} pixels",
            where="data.image_size",
            why=f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}",
            fix=f"data.image_size={size}",
        )
