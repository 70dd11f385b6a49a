"""A class for each pixel: cross-entropy, mean intersection over union, pixel accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassJaccardIndex

from mlscale.errors import MLScaleError
from mlscale.tasks.base import Partial, Task
from mlscale.tasks.batch import Batch, unpack_batch
from mlscale.tasks.label_checks import check_labels, check_logits, compute_class_weights

IGNORED = 255
"""The label of ignored pixels: they count neither in the loss nor in a metric."""


class Segmentation(Task):
    """The task of classifying each pixel.

    Masks are uint8 (n, h, w): class numbers, 255 for pixels that are ignored. Validation and test metrics,
    ``val/…`` and ``test/…``: ``loss``, the mean over samples of the mean cross-entropy of their pixels; and of
    torchmetrics, over all pixels: ``miou``, the mean over classes of intersection over union; ``dice``, that of their
    F1; ``pixel_accuracy``. A class that is neither in the masks nor predicted is left out of the means.

    Args:
        num_classes: the labels are 0 … num_classes - 1, background included, and the model gives that many logits.
        class_weights: see `Classification`; by pixels.
        class_counts: training pixels of each class, for 'balanced'.
        aux_weight: of the loss of a model's auxiliary output, "aux", in training.
        model: images to logits, (n, c, h, w) to (n, num_classes, h, w), or to a dict that has them under "out", as
            torchvision's do.
        optimizer: see `Task`.
        scheduler: see `Task`.
    """

    kind: ClassVar[str] = "segmentation"
    reads_logits: ClassVar[bool] = True

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        class_weights: str | Sequence[float] | None = None,
        class_counts: Sequence[int] | None = None,
        aux_weight: float = 0.5,
        *,
        model: nn.Module,
        optimizer: Partial | None = None,
        scheduler: Partial | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, scheduler=scheduler)
        self.num_classes, self.aux_weight = num_classes, aux_weight
        # Not in checkpoints: it comes from the configuration, and weights alone go into another run.
        self.register_buffer(
            "class_weights", compute_class_weights(class_weights, class_counts, num_classes), persistent=False
        )
        self._labels_to_check = 16  # as in Classification

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of each sample's pixels, float (n,); 0 for one whose pixels are all ignored."""
        return self._compute_cross_entropy(extract_logits(outputs), batch.y, None)

    def training_losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss with the classes' weights, and the auxiliary output's where the model has one, float (n,)."""
        losses = self._compute_cross_entropy(extract_logits(outputs), batch.y, self.class_weights)
        if isinstance(outputs, Mapping) and "aux" in outputs:
            losses = losses + self.aux_weight * self._compute_cross_entropy(outputs["aux"], batch.y, self.class_weights)
        return losses

    def metrics(self) -> dict[str, Metric]:
        """Return mIoU, dice and pixel accuracy."""
        settings: dict[str, Any] = {"ignore_index": IGNORED, "validate_args": False}
        return {
            "miou": MulticlassJaccardIndex(self.num_classes, **settings),
            "dice": MulticlassF1Score(self.num_classes, **settings),
            "pixel_accuracy": MulticlassAccuracy(self.num_classes, average="micro", **settings),
        }

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        """Add the likeliest class of each pixel."""
        metrics.update(extract_logits(outputs).argmax(1), batch.y.long())

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return ``logits``, float (n, num_classes, h, w)."""
        return {"logits": extract_logits(self(unpack_batch(batch).x))}

    def _compute_cross_entropy(self, logits: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        check_logits(logits.shape[1], self.num_classes)
        if y.shape != (logits.shape[0], *logits.shape[2:]):
            raise MLScaleError(
                f"the masks are {tuple(y.shape)}, and the logits {tuple(logits.shape)}",
                where="task",
                why="segmentation takes a class number for each pixel, y of (n, h, w), and logits for each, too",
                fix="data.labels=mask, and a model for segmentation, such as model=unet",
            )
        labelled = y != IGNORED
        if self._labels_to_check and not y.is_cpu:
            self._labels_to_check -= 1
            check_labels(y[labelled], self.num_classes)
        try:
            losses = F.cross_entropy(logits, y.long(), weight=weight, ignore_index=IGNORED, reduction="none")
        except IndexError:  # "Target 23 is out of bounds."
            check_labels(y[labelled], self.num_classes)
            raise
        # Over labelled pixels alone; at least 1, since an image may have none.
        return losses.sum((1, 2)) / labelled.sum((1, 2)).clamp(min=1)


def extract_logits(outputs: object) -> Tensor:
    """Return the logits in a model's outputs, (n, classes, h, w).

    Raises:
        MLScaleError: the outputs hold no such logits.
    """
    logits = outputs.get("out") if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        shown = tuple(logits.shape) if isinstance(logits, Tensor) else type(outputs).__name__
        refused = MLScaleError(
            f"the model gives {shown}",
            where="model",
            why="segmentation takes logits (n, classes, h, w), or a dict that has them under 'out'",
            fix="model=unet",
        )
        refused.unbuilt = True  # found at the first batch
        raise refused
    return logits
