"""The loss of a training step, without waiting for the device."""

from collections.abc import Mapping

from torch import Tensor


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
