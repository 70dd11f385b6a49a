"""Images that a model can't take: detected after a failed fit, by giving the model images of other sizes."""

from __future__ import annotations

import torch
from pytorch_lightning import LightningModule
from torch import nn

from mlscale.errors import MLScaleError
from mlscale.tasks.base import Task

# Usual sizes of images; 299 is Inception v3's.
_SIZES = (16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 299, 320, 384, 448, 512)
# The errors that torch and model libraries raise for shapes; out of memory is a RuntimeError, too, and left out below.
_SHAPE_ERRORS = (RuntimeError, ValueError, AssertionError, IndexError)


def explain_unsuited_input(
    error: BaseException, task: LightningModule, data: object, *, per_device_batch: int | None, ranks: int
) -> MLScaleError | None:
    """Return the error to report when `error` means that the model can't take images of the data's size, else None.

    Args:
        task: whose fit failed. The input that a third-party task gives its model is not known.
        data: the data module, which knows its `facts`.
        per_device_batch: samples of a forward pass.
        ranks: of the run, times its accumulated batches.
    """
    if not isinstance(task, Task) or not isinstance(error, _SHAPE_ERRORS) or isinstance(error, torch.OutOfMemoryError):
        return None
    facts = data.facts() if hasattr(data, "facts") else None
    if facts is None or not (facts.height and facts.width and facts.channels) or not per_device_batch:
        return None
    name, own = type(task.model).__name__, (facts.channels, facts.height, facts.width)
    if _can_process(task.model, min(per_device_batch, 2), own):
        return None
    if per_device_batch == 1 and _can_process(task.model, 2, own):
        return MLScaleError(
            f"{name} can't be trained on one image at a time",
            where="data.batch_size",
            why="it normalises over the batch, and is left with one value for each channel",
            fix=f"data.batch_size={2 * ranks}",
        )
    size = _find_suitable_size(task.model, *own)
    fixes = [f"data.image_size={size}"] if size is not None else []
    fixes += _suggest_built_size(task.model, facts.height, facts.width)
    if not fixes:
        return None
    return MLScaleError(
        f"{name} can't take images of {facts.height}×{facts.width} pixels",
        where="data.image_size",
        why=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'raised in its forward'}",
        fix="\n".join(fixes),
    )


def _suggest_built_size(model: nn.Module, height: int, width: int) -> list[str]:
    """Return the override that builds a vision transformer of timm for images of about this size, if it is one."""
    patches = getattr(model, "patch_embed", None)
    patch, built = getattr(patches, "patch_size", None), getattr(patches, "img_size", None)
    if not (isinstance(patch, tuple) and isinstance(built, tuple) and type(model).__module__.startswith("timm.")):
        return []
    if height != width or patch[0] != patch[1]:
        return []
    # It would drop the pixels that fill no patch, and can't take an image that is smaller than one.
    size = max(height // patch[0], 1) * patch[0]
    if size == height:
        return [f"model.img_size={size}, which builds it for this size"]
    return [f"data.image_size={size} model.img_size={size}, the nearest size of whole patches of {patch[0]} pixels"]


def _find_suitable_size(model: nn.Module, channels: int, height: int, width: int) -> int | None:
    """Return the next larger square that the model takes, else the next smaller one."""
    largest = max(height, width)
    built = getattr(getattr(model, "patch_embed", None), "img_size", None)
    # Its own size may be none of the usual ones, such as 518.
    sizes = sorted({*_SIZES, *(built if isinstance(built, tuple) else ())})
    larger = [size for size in sizes if size > largest]
    smaller = [size for size in reversed(sizes) if size <= largest]
    # Two images: batch normalisation can't train on one where maps shrink to 1×1.
    return next((size for size in larger + smaller if _can_process(model, 2, (channels, size, size))), None)


def _can_process(model: nn.Module, batch: int, shape: tuple[int, ...]) -> bool:
    """Return whether the model computes a batch of this shape, in training mode."""
    parameter = next(model.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            model.train()(torch.zeros(batch, *shape, device=parameter.device, dtype=parameter.dtype))
    except Exception:
        return False
    return True
