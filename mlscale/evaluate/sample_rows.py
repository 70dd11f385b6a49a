"""Convert a batch and the model's outputs for it to columns, one row for each sample.

Columns are numpy arrays, first dimension n. Every kind has `loss`; the worst samples are those with the largest loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mlscale.errors import MLScaleError

Columns = dict[str, NDArray[Any]]
IGNORED = 255  # a pixel that belongs to no class


def compute_classification_columns(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """Return `truth`, `predicted`, `confidence`, `probabilities` (n, k), `loss`, `brier`, and `rank` of the true class
    (0: predicted correctly)."""
    logits = outputs["logits"].float()  # 16-bit precision would round small probabilities to 0
    probabilities = logits.softmax(-1)
    confidence, predicted = probabilities.max(-1)
    of_truth = logits.gather(-1, y[:, None])
    # The Brier score Σ(p − onehot)², expanded: it needs no one-hot matrix (n, k).
    brier = (probabilities**2).sum(-1) + 1 - 2 * probabilities.gather(-1, y[:, None])[:, 0]
    return _convert_to_numpy(
        truth=y.int(),
        predicted=predicted.int(),
        confidence=confidence,
        probabilities=probabilities,
        loss=F.cross_entropy(logits, y, reduction="none"),
        brier=brier,
        rank=(logits > of_truth).sum(-1).int(),
        logits=logits,
    )


def compute_multilabel_columns(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """Return `truth`, `predicted` (uint8) and `probabilities`, (n, k) each; `loss`, the mean over labels."""
    logits = outputs["logits"].float()
    return _convert_to_numpy(
        truth=y.to(torch.uint8),
        predicted=(logits > 0).to(torch.uint8),  # a probability above 0.5
        probabilities=logits.sigmoid(),
        loss=F.binary_cross_entropy_with_logits(logits, y.float(), reduction="none").mean(-1),
    )


def compute_regression_columns(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """Return `truth` and `predicted`, float32 (n, targets); `loss`, the squared error, mean over targets."""
    value = outputs["value"].float()
    # Targets may be (n,) and values (n, 1): broadcasting them would give (n, n) differences.
    truth = y.float().reshape(value.shape)
    return _convert_to_numpy(truth=truth, predicted=value, loss=((value - truth) ** 2).mean(-1))


def compute_segmentation_columns(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """Return the pixels of each class that are `hit`, `predicted` and `true`, int64 (n, k) each; `iou`, the mean over
    classes that are in the image or predicted there; `loss`, mean over pixels. Ignored pixels count nowhere."""
    logits = outputs["logits"].float()
    n, k = logits.shape[:2]
    truth, predicted = y.long(), logits.argmax(1)
    valid = truth != IGNORED
    losses = F.cross_entropy(logits, truth, ignore_index=IGNORED, reduction="none").sum((1, 2))
    # One bincount over (image, class) cells counts all images of the batch at once.
    number = torch.arange(n, device=y.device)[:, None, None] * k

    def count_class_pixels(classes: Tensor, where: Tensor) -> Tensor:
        return torch.bincount((number + classes)[where], minlength=n * k).reshape(n, k)

    hit, predicted_pixels, true = (
        count_class_pixels(predicted, valid & (predicted == truth)),
        count_class_pixels(predicted, valid),
        count_class_pixels(truth.clamp(max=k - 1), valid),
    )
    union = predicted_pixels + true - hit
    # NaN in an image that has only ignored pixels.
    iou = torch.where(union > 0, hit / union.clamp(min=1), torch.nan).nanmean(-1)
    return _convert_to_numpy(
        hit=hit, predicted=predicted_pixels, true=true, iou=iou, loss=losses / valid.sum((1, 2)).clamp(min=1)
    )


def compute_language_columns(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """Return `nats` and `tokens` of each sequence; `loss`, nats a token."""
    nats, tokens = outputs["nats"].float(), outputs["tokens"]
    return _convert_to_numpy(nats=nats, tokens=tokens.long(), loss=nats / tokens.clamp(min=1))


KINDS: dict[str, Callable[[Mapping[str, Tensor], Tensor], Columns]] = {
    "classification": compute_classification_columns,
    "multilabel": compute_multilabel_columns,
    "segmentation": compute_segmentation_columns,
    "regression": compute_regression_columns,
    "language": compute_language_columns,
}
TABLE_COLUMNS = {
    "classification": ("truth", "predicted", "confidence", "probabilities", "loss"),
    "multilabel": ("truth", "predicted", "probabilities", "loss"),
    "segmentation": ("hit", "predicted", "true", "iou", "loss"),
    "regression": ("truth", "predicted", "loss"),
    "language": ("nats", "tokens", "loss"),
}
"""The columns of the table of samples, by kind."""


def compute_sample_columns(kind: str, outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """Return the columns of a batch.

    Args:
        kind: one of `KINDS`.
        outputs: of `predict_step`: {"logits"}, {"value"} or {"nats", "tokens"}, n first.
        y: the truth, as the data gives it.

    Raises:
        MLScaleError: the outputs are not those of the task's kind.
    """
    # A user's task may return other names or shapes; the error then names both instead of torch's message alone.
    try:
        return KINDS[kind](outputs, y.to(next(iter(outputs.values())).device))
    except (KeyError, RuntimeError, IndexError) as error:
        shapes = {name: tuple(value.shape) for name, value in outputs.items() if isinstance(value, Tensor)}
        raise MLScaleError(
            f"the model's output can't be measured as {kind}",
            where="task.predict_step",
            why=f"it gives {shapes} for targets of {tuple(y.shape)}: {' '.join(str(error).split())[:200]}",
            fix="let predict_step and kind agree: docs/evaluate.md lists what each kind gives",
        ) from error


def _convert_to_numpy(**columns: Tensor) -> Columns:
    return {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in columns.items()}
