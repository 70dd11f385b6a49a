"""From a batch and what a model says of it to columns, one row a sample.

Columns are numpy arrays, first dimension n. `loss` is there for every kind; the worst samples are those where it is
largest.
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


def classification(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """`truth`, `predicted`, `confidence`, `probabilities` (n, k), `loss`, `brier`, `rank` of the truth (0 is right)."""
    logits = outputs["logits"].float()
    probabilities = logits.softmax(-1)
    confidence, predicted = probabilities.max(-1)
    of_truth = logits.gather(-1, y[:, None])
    brier = (probabilities**2).sum(-1) + 1 - 2 * probabilities.gather(-1, y[:, None])[:, 0]
    return _numpy(
        truth=y.int(),
        predicted=predicted.int(),
        confidence=confidence,
        probabilities=probabilities,
        loss=F.cross_entropy(logits, y, reduction="none"),
        brier=brier,
        rank=(logits > of_truth).sum(-1).int(),
        logits=logits,
    )


def multilabel(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """`truth`, `predicted` (uint8) and `probabilities`, (n, k) each; `loss`, the mean over labels."""
    logits = outputs["logits"].float()
    return _numpy(
        truth=y.to(torch.uint8),
        predicted=(logits > 0).to(torch.uint8),
        probabilities=logits.sigmoid(),
        loss=F.binary_cross_entropy_with_logits(logits, y.float(), reduction="none").mean(-1),
    )


def regression(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """`truth` and `predicted`, float32 (n, targets); `loss`, the squared error, mean over targets."""
    value = outputs["value"].float()
    truth = y.float().reshape(value.shape)
    return _numpy(truth=truth, predicted=value, loss=((value - truth) ** 2).mean(-1))


def segmentation(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """Pixels of each class that are `hit`, `predicted` and `true`, int64 (n, k) each; `iou`, the mean over classes that
    are in the image or predicted there; `loss`, mean over pixels. Ignored pixels count nowhere."""
    logits = outputs["logits"].float()
    n, k = logits.shape[:2]
    truth, predicted = y.long(), logits.argmax(1)
    counted = truth != IGNORED
    losses = F.cross_entropy(logits, truth, ignore_index=IGNORED, reduction="none").sum((1, 2))
    number = torch.arange(n, device=y.device)[:, None, None] * k

    def pixels(classes: Tensor, where: Tensor) -> Tensor:
        return torch.bincount((number + classes)[where], minlength=n * k).reshape(n, k)

    hit, told, true = (
        pixels(predicted, counted & (predicted == truth)),
        pixels(predicted, counted),
        pixels(truth.clamp(max=k - 1), counted),
    )
    union = told + true - hit
    iou = torch.where(union > 0, hit / union.clamp(min=1), torch.nan).nanmean(-1)
    return _numpy(hit=hit, predicted=told, true=true, iou=iou, loss=losses / counted.sum((1, 2)).clamp(min=1))


def language(outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """`nats` and `tokens` of each sequence; `loss`, nats a token."""
    nats, tokens = outputs["nats"].float(), outputs["tokens"]
    return _numpy(nats=nats, tokens=tokens.long(), loss=nats / tokens.clamp(min=1))


KINDS: dict[str, Callable[[Mapping[str, Tensor], Tensor], Columns]] = {
    "classification": classification,
    "multilabel": multilabel,
    "segmentation": segmentation,
    "regression": regression,
    "language": language,
}
TABLED = {
    "classification": ("truth", "predicted", "confidence", "probabilities", "loss"),
    "multilabel": ("truth", "predicted", "probabilities", "loss"),
    "segmentation": ("hit", "predicted", "true", "iou", "loss"),
    "regression": ("truth", "predicted", "loss"),
    "language": ("nats", "tokens", "loss"),
}
"""What stands in the table of samples, by kind."""


def rows_of(kind: str, outputs: Mapping[str, Tensor], y: Tensor) -> Columns:
    """The columns of a batch.

    Args:
        kind: one of `KINDS`.
        outputs: of `predict_step`: {"logits"}, {"value"} or {"nats", "tokens"}, n first.
        y: the truth, as the data gives it.

    Raises:
        MLScaleError: the model says something else than its kind does.
    """
    try:
        return KINDS[kind](outputs, y.to(next(iter(outputs.values())).device))
    except (KeyError, RuntimeError, IndexError) as error:
        shapes = {name: tuple(value.shape) for name, value in outputs.items() if isinstance(value, Tensor)}
        raise MLScaleError(
            f"what the model says can't be measured as {kind}",
            where="task.predict_step",
            why=f"it gives {shapes} for targets of {tuple(y.shape)}: {' '.join(str(error).split())[:200]}",
            fix="let predict_step and kind agree: docs/evaluate.md says what each kind gives",
        ) from error


def _numpy(**columns: Tensor) -> Columns:
    return {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in columns.items()}
