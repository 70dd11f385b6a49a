"""Any number of labels per sample: binary cross-entropy for each class, mAP, F1 and exact matches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelExactMatch, MultilabelF1Score

from mlscale.errors import MLScaleError
from mlscale.tasks.base import Partial, Task, check_tensor
from mlscale.tasks.batch import Batch, unpack_batch
from mlscale.tasks.label_checks import check_logits, check_smoothing


class Multilabel(Task):
    """The task of predicting which of `num_classes` labels a sample has.

    Labels are 0 or 1 for each class, float (n, num_classes). Validation and test metrics, ``val/…`` and ``test/…``:
    ``loss``, the mean binary cross-entropy over classes and samples; and of torchmetrics ``map``, the mean over classes
    of the average precision; ``f1_macro`` and ``f1_micro``, the mean of the classes' F1 and that of all decisions
    together; ``exact_match``, the share of samples with every class right. A class without a positive sample counts 0
    in ``map``, as it does in scikit-learn.

    Args:
        num_classes: the model gives that many logits.
        threshold: the probability from which a class counts as predicted, in F1 and exact matches.
        label_smoothing: the share of each 0 and 1 that is moved to the middle, in training only.
        map_thresholds: points of the precision-recall curves behind ``map``; None for exact ones, which keep every
            prediction of an evaluation in memory.
        model: inputs to logits, (n, …) to (n, num_classes).
        optimizer: see `Task`.
        scheduler: see `Task`.
    """

    kind: ClassVar[str] = "multilabel"
    reads_logits: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        threshold: float = 0.5,
        label_smoothing: float = 0.0,
        map_thresholds: int | None = None,
        *,
        model: nn.Module,
        optimizer: Partial | None = None,
        scheduler: Partial | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, scheduler=scheduler)
        check_smoothing(label_smoothing)
        self.num_classes, self.threshold, self.label_smoothing = num_classes, threshold, label_smoothing
        self.map_thresholds = map_thresholds

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the binary cross-entropy of each sample, its mean over classes, float (n,)."""
        return self._compute_cross_entropy(outputs, batch.y)

    def training_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the binary cross-entropy with smoothed labels, float (n,)."""
        y = batch.y.float()
        # A share of each label moves to 0.5, the middle between 0 and 1.
        return self._compute_cross_entropy(outputs, y + self.label_smoothing * (0.5 - y) if self.label_smoothing else y)

    def metrics(self) -> dict[str, Metric]:
        """Return mAP, macro and micro F1, and exact matches."""
        count, bound = self.num_classes, self.threshold
        return {
            # Arguments are not validated: torchmetrics' checks read the tensors' values, and wait for the device.
            "map": MultilabelAveragePrecision(count, thresholds=self.map_thresholds, validate_args=False),
            "f1_macro": MultilabelF1Score(count, bound, average="macro", validate_args=False),
            "f1_micro": MultilabelF1Score(count, bound, average="micro", validate_args=False),
            "exact_match": MultilabelExactMatch(count, bound, validate_args=False),
        }

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch as probabilities: torchmetrics would read logits that are all between 0 and 1 as such."""
        # Labels are float for the loss; torchmetrics takes integers.
        metrics.update(outputs.float().sigmoid(), batch.y.long())

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return ``logits``, float (n, num_classes): the sigmoid of each is the probability of its class."""
        return {"logits": self(unpack_batch(batch).x)}

    def _compute_cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        check_tensor(logits, self.kind)
        check_logits(logits.shape[-1], self.num_classes)
        if y.shape != logits.shape:
            raise MLScaleError(
                f"the labels are {tuple(y.shape)}, and the logits {tuple(logits.shape)}",
                where="task",
                why="multilabel takes 0 or 1 for each class: y of (n, classes)",
                fix="data.labels=several, or task=classification where each sample has one class",
            )
        return F.binary_cross_entropy_with_logits(logits, y.float(), reduction="none").mean(dim=1)
