"""Outputs of models other than a tensor: auxiliary outputs in training, output objects, and what a task can't take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mlscale.errors import MLScaleError


def split_auxiliary(outputs: object) -> tuple[Any, tuple[Any, ...]]:
    """Return the main output and the auxiliary ones: of a named tuple such as torchvision's `InceptionOutputs` and
    `GoogLeNetOutputs` give in training, the fields that begin with "aux"; any other output has none.
    """
    # By the fields' names: a named tuple of torchvision's is of another class for each model.
    names = getattr(outputs, "_fields", ())
    if not isinstance(outputs, tuple) or not any(name.startswith("aux") for name in names[1:]):
        return outputs, ()
    return outputs[0], tuple(
        value for name, value in zip(names, outputs, strict=True) if name.startswith("aux") and value is not None
    )


def unwrap_logits(outputs: object) -> Any:
    """Return the logits of an output object, as the models of transformers return; any other output as it is."""
    # torchvision's named tuples hold auxiliary outputs, too: `split_auxiliary` reads them.
    if isinstance(outputs, Tensor | tuple):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    return logits if isinstance(logits, Tensor) else outputs


def check_tensor(outputs: object, kind: str) -> None:
    """Check that the output is a tensor.

    Raises:
        MLScaleError: the model returns something else, as networks for segmentation or detection do.
    """
    if isinstance(outputs, Tensor):
        return
    by_pixel = isinstance(outputs, Mapping) and isinstance(outputs.get("out"), Tensor)
    names = ", ".join(map(str, outputs)) if isinstance(outputs, Mapping) else ""
    shown = type(outputs).__name__ + (f" with {names}" if names else "")
    refused = MLScaleError(
        f"the model gives {shown}",
        where="model",
        why=f"{kind} takes a tensor (n, …)" + (", and this is a network for segmentation" if by_pixel else ""),
        fix="model=resnet18; or task=segmentation metric=val/miou with data.labels=mask"
        if by_pixel
        else "model=resnet, or a forward that returns the tensor alone",
    )
    refused.unbuilt = True  # found at the first batch
    raise refused
