"""One label per sample: cross-entropy and accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC, MulticlassRecall
from torchmetrics.utilities import dim_zero_cat

from mlscale.task_types.rare_classes import is_imbalanced
from mlscale.tasks.base import Partial, Task, check_tensor
from mlscale.tasks.batch import Batch, unpack_batch
from mlscale.tasks.label_checks import check_labels, check_logits, check_smoothing, compute_class_weights


class Classification(Task):
    """The task of classifying samples into `num_classes` classes.

    Validation and test metrics are ``val/loss``, ``val/accuracy``, ``test/loss`` and ``test/accuracy``: weighted means
    over every sample of every rank, of the plain cross-entropy. Where a class is rare, also ``balanced_accuracy``, the
    mean of the recalls of the classes that occur, and with two classes ``auc``, NaN where only one of them occurs.

    Args:
        num_classes: the labels are 0 … num_classes - 1, and the model gives that many logits.
        label_smoothing: the share of the target spread over all classes (Szegedy et al. 2016), in training only.
        class_weights: how much the samples of each class count in the training loss: a number for each; 'balanced' for
            the same total for every class; None for equal weights. See `compute_class_weights`.
        class_counts: training samples of each class, for 'balanced', and to find rare ones.
        model: images to logits, (n, …) to (n, num_classes).
        optimizer: see `Task`.
        scheduler: see `Task`.
    """

    kind: ClassVar[str] = "classification"
    reads_logits: ClassVar[bool] = True
    # torchmetrics is not used here: its MulticlassAccuracy takes no weights, and each metric there costs some 100 µs
    # per batch and a collective of its own, where this is one addition per batch and one collective per epoch.
    mean_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        class_counts: Sequence[int] | None = None,
        *,
        model: nn.Module,
        optimizer: Partial | None = None,
        scheduler: Partial | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, scheduler=scheduler)
        check_smoothing(label_smoothing)
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self._has_rare_class = is_imbalanced(class_counts or ())
        # Not in checkpoints: it comes from the configuration, and weights alone go into another run.
        self.register_buffer(
            "class_weights", compute_class_weights(class_weights, class_counts, num_classes), persistent=False
        )
        # On a CPU cross_entropy finds every wrong label. On an accelerator that is an assertion inside a kernel, which
        # poisons the process and names nothing, and looking first makes the host wait: so the first batches only.
        self._labels_to_check = 16

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss, a scalar; see `Task.training_step`. Where all samples count alike, torch takes the mean."""
        given = unpack_batch(batch)
        outputs = self(given.x)
        # A subclass that overrides `training_losses` must have it called.
        is_default_loss = type(self).training_losses is Classification.training_losses
        if is_default_loss and given.weight is None and self.class_weights is None and isinstance(outputs, Tensor):
            return self._compute_cross_entropy(outputs, given.y, self.label_smoothing, "mean")
        return self.compute_training_loss(outputs, given)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of each sample, float (n,)."""
        return self._compute_cross_entropy(outputs, batch.y)

    def training_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy with smoothed labels, times the weight of the sample's class, float (n,)."""
        losses = self._compute_cross_entropy(outputs, batch.y, self.label_smoothing)
        if self.class_weights is None:
            return losses
        # With mixup a label is a distribution over classes, (n, num_classes).
        return losses * (self.class_weights[batch.y] if batch.y.ndim == 1 else batch.y @ self.class_weights)

    def means(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return the loss, and True where the class is right, (n,)."""
        return self.losses(outputs, batch), outputs.argmax(-1) == batch.y

    def metrics(self) -> dict[str, Metric]:
        """Return balanced accuracy and AUC where a class is rare."""
        if not self._has_rare_class:
            return {}
        balanced = {"balanced_accuracy": _BalancedAccuracy(self.num_classes, average="macro", validate_args=False)}
        return balanced | ({"auc": _AUC(validate_args=False)} if self.num_classes == 2 else {})

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch as probabilities, of which `mlscale evaluate` computes the same metrics."""
        metrics.update(outputs.float().softmax(-1), batch.y)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return ``logits``, float (n, num_classes)."""
        return {"logits": self(unpack_batch(batch).x)}

    def _compute_cross_entropy(
        self, logits: Tensor, y: Tensor, label_smoothing: float = 0.0, reduction: str = "none"
    ) -> Tensor:
        check_tensor(logits, self.kind)
        check_logits(logits.shape[-1], self.num_classes)
        if self._labels_to_check and not y.is_cpu:
            self._labels_to_check -= 1
            check_labels(y, self.num_classes)
        try:
            return F.cross_entropy(logits, y, label_smoothing=label_smoothing, reduction=reduction)
        except IndexError:  # "Target 7 is out of bounds."
            check_labels(y, self.num_classes)
            raise


class _BalancedAccuracy(MulticlassRecall):
    """The mean recall of the classes that occur; torchmetrics counts 0 for one that was only predicted."""

    def compute(self) -> Tensor:
        hits: Any = self.tp
        support: Any = hits + self.fn
        # 0 / 0 of a class that does not occur is NaN, and left out before the mean.
        recall: Tensor = (hits / support)[support > 0].mean()
        return recall


class _AUC(BinaryAUROC):
    """AUC of the second class by probabilities (n, 2); NaN where one class is missing, where torchmetrics gives 0."""

    def update(self, probabilities: Tensor, y: Tensor) -> None:
        super().update(probabilities[:, 1], y)

    def compute(self) -> Tensor:  # type: ignore[override]  # as BinaryAUROC's own
        y = dim_zero_cat(self.target)
        return super().compute() if 0 < y.sum() < len(y) else torch.tensor(torch.nan, device=y.device)
