"""The loss that a training step gave, without waiting for the device."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def loss_of(outputs: Any) -> Tensor | None:
    """The detached loss in what Lightning hands to `on_train_batch_end`; None when the step was skipped.

    Lightning divides it by the accumulation: the losses of an optimizer step's forward passes add up to its loss.
    """
    if isinstance(outputs, Mapping):
        outputs = outputs.get("loss")
    if not isinstance(outputs, Tensor):
        return None
    return outputs.detach() if outputs.requires_grad else outputs
