"""Compare the exported model's logits with the trained one's, on validation samples and at several batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlscale.export.validation_samples import ValidationBatch
from mlscale.report.text import format_percent

Logits = NDArray[np.float32]
BATCHES = (1, 3, 32)  # other sizes than the example batch of the export


@dataclass
class Parity:
    """The outcome of a comparison.

    Attributes:
        samples: validation samples compared.
        largest_logit: the largest absolute value of the trained model's logits; errors are relative to it.
        max_abs_error: the largest absolute difference of a logit over all samples.
        agreement: share of the samples for which both predict the same class.
        torch_accuracy: of the trained model, as `mlscale evaluate` measures it.
        onnx_accuracy: of the exported one.
        batches: batch size to the largest absolute difference at that size.
    """

    samples: int = 0
    largest_logit: float = 0.0
    max_abs_error: float = 0.0
    agreement: float = 0.0
    torch_accuracy: float = 0.0
    onnx_accuracy: float = 0.0
    batches: dict[int, float] = field(default_factory=dict)

    @property
    def relative_error(self) -> float:
        """The largest difference over all samples and batch sizes, divided by the largest logit (at least 1)."""
        # numpy's maximum keeps a NaN, Python's drops it.
        worst = float(np.max([self.max_abs_error, *self.batches.values()]))
        return worst / max(1.0, self.largest_logit) if np.isfinite(self.largest_logit) else float("nan")

    @property
    def accuracy_drop(self) -> float:
        """Accuracy of the trained model less that of the exported one."""
        return self.torch_accuracy - self.onnx_accuracy

    def find_problems(
        self, *, tolerance: float | None, min_agreement: float, max_accuracy_drop: float | None = None
    ) -> list[str]:
        """Return each bound that is not met, with its value; NaN meets none, and None means no bound."""
        problems = []
        # `not x <= bound`, as every comparison with NaN is false: a diverged model must not pass.
        if tolerance is not None and not self.relative_error <= tolerance:
            problems.append(f"the logits differ by {self.relative_error:.1e} of the largest, more than {tolerance:g}")
        if not self.agreement >= min_agreement:
            problems.append(
                f"{format_percent(self.agreement, 2)} of the classes agree, "
                f"fewer than {format_percent(min_agreement, 2)}"
            )
        if max_accuracy_drop is not None and not self.accuracy_drop <= max_accuracy_drop:
            problems.append(f"accuracy falls by {self.accuracy_drop:.4f}, more than {max_accuracy_drop:g}")
        return problems

    def as_dict(self) -> dict[str, Any]:
        """Return the content of parity.json."""
        return {
            "samples": self.samples,
            "largest_logit": self.largest_logit,
            "max_abs_error": self.max_abs_error,
            "relative_error": self.relative_error,
            "agreement": self.agreement,
            "torch_accuracy": self.torch_accuracy,
            "onnx_accuracy": self.onnx_accuracy,
            "max_abs_error_by_batch": {str(size): error for size, error in self.batches.items()},
        }


def build_logits_function(task: nn.Module) -> Callable[[Tensor], Logits]:
    """Return the trained task as a function of samples that are already preprocessed."""

    def compute_logits(x: Tensor) -> Logits:
        with torch.no_grad():
            logits: Logits = task(x).float().numpy()
        return logits

    return compute_logits


def compare_logits(
    trained: Callable[[Tensor], Logits],
    exported: Callable[[NDArray[Any]], Logits],
    batches: Iterable[ValidationBatch],
    on_batch: Callable[[ValidationBatch, Logits], None] = lambda samples, logits: None,
) -> Parity:
    """Compare both models on the same samples: the trained one gets them preprocessed, the exported one raw.

    Args:
        trained: maps `x` of the samples to logits.
        exported: maps raw samples to logits.
        batches: the samples, at least one.
        on_batch: called with every batch and the exported model's logits, which saves a second pass.
    """
    parity, agree, right = Parity(), 0, np.zeros(2, np.int64)
    first: list[ValidationBatch] = []
    for samples in batches:
        trained_logits, exported_logits = trained(samples.x), exported(samples.raw)
        on_batch(samples, exported_logits)
        # Enough samples are kept for the batch sizes below.
        if sum(len(batch.y) for batch in first) < max(BATCHES):
            first.append(samples)
        parity.samples += len(samples.y)
        parity.largest_logit = _compute_maximum(parity.largest_logit, trained_logits)
        parity.max_abs_error = _compute_maximum(parity.max_abs_error, trained_logits - exported_logits)
        classes = trained_logits.argmax(-1), exported_logits.argmax(-1)
        agree += int((classes[0] == classes[1]).sum())
        right += [int((chosen == samples.y).sum()) for chosen in classes]
    parity.agreement = agree / parity.samples
    parity.torch_accuracy, parity.onnx_accuracy = (right / parity.samples).tolist()
    raw, x = np.concatenate([batch.raw for batch in first]), torch.cat([batch.x for batch in first])
    for size in BATCHES:
        # With fewer samples than the batch has places, they are repeated.
        rows = np.arange(size) % len(raw)
        parity.batches[size] = _compute_maximum(0.0, trained(x[rows]) - exported(raw[rows]))
    return parity


def _compute_maximum(value: float, array: NDArray[Any]) -> float:
    # Unlike Python's max, np.maximum and .max() keep a NaN.
    return float(np.maximum(value, np.abs(array).max()))
