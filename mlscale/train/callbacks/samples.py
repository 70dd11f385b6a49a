"""Predictions of a few validation samples, as images and a table in every tracker, after each validation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, SupportsInt

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from mlscale.errors import MLScaleError
from mlscale.report.contact_sheet import Tile, convert_to_image, draw_contact_sheet, render_class_mask
from mlscale.report.text import format_percent
from mlscale.tasks.batch import unpack_batch
from mlscale.train.loggers import log_image, log_table

_MAX_SHOWN_LABELS = 5


class Samples(Callback):
    """A callback that shows the first samples of each validation in every tracker with media (all built-in ones).

    They are the same ones every time, so the images of a run show how it learns. ``val/samples`` is a contact sheet,
    where samples are images; ``val/samples_table`` has key, truth and prediction. It calls the task's `predict_step`
    once a validation, for `count` samples, on the first process alone; a task that has none, or no `kind`, has nothing
    to show.

    Args:
        count: samples that are shown, of the first batch of the first process.

    Raises:
        MLScaleError: `count` is not 1 to 256.
    """

    def __init__(self, count: int = 21) -> None:
        if not 1 <= count <= 256:
            raise MLScaleError(
                f"callbacks.samples.count is {count}", where="callbacks.samples.count", fix="callbacks.samples.count=21"
            )
        self.count = count

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and (kind := getattr(pl_module, "kind", None)) not in _DESCRIBERS:
            task = f"a {kind} task" if kind else type(pl_module).__name__
            tqdm.write(f"callbacks.samples has no effect: {task} reports nothing of single samples", file=sys.stderr)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        kind = getattr(pl_module, "kind", None)
        if (
            batch_idx
            or dataloader_idx
            or trainer.sanity_checking
            or not trainer.is_global_zero
            or kind not in _DESCRIBERS
        ):
            return
        # One small forward pass per validation, on the first batch alone: the others are not delayed.
        given = unpack_batch(batch)
        # The weights are left out: they do not change a prediction.
        few = {"x": given.x[: self.count], "y": given.y[: self.count]}
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            predictions = pl_module.predict_step(few, 0)
        self._show_samples(trainer, kind, batch, few, predictions)

    def _show_samples(
        self, trainer: Trainer, kind: str, batch: object, few: Mapping[str, Tensor], predictions: Mapping[str, Tensor]
    ) -> None:
        x, y = few["x"].float().cpu().numpy(), few["y"].cpu().numpy()
        keys = batch.get("key") if isinstance(batch, Mapping) else None
        keys = [str(key) for key in keys[: len(x)]] if keys is not None else [str(row) for row in range(len(x))]
        values = {name: value.float().cpu().numpy() for name, value in predictions.items()}
        names = _get_class_names(trainer)
        step = (
            trainer.fit_loop.epoch_loop._batches_that_stepped
        )  # as Lightning's own entries of this validation have it
        rows = [(key, *_DESCRIBERS[kind](names, y[row], values, row)) for row, key in enumerate(keys)]
        # (n, channels, height, width): other inputs have a table, and no images.
        if x.ndim == 4:
            tiles = [
                Tile(
                    _build_images(kind, x[row], y[row], values, row),
                    truth,
                    predicted,
                    _is_wrong(kind, truth, predicted),
                )
                for row, (_, truth, predicted) in enumerate(rows)
            ]
            log_image(trainer.loggers, "val/samples", _render_sheet(tiles), step)
        log_table(trainer.loggers, "val/samples_table", ("key", "truth", "prediction"), rows, step)


def _describe_class(
    names: list[str] | None, truth: SupportsInt, values: Mapping[str, NDArray[Any]], row: int
) -> tuple[str, str]:
    shares = _compute_softmax(values["logits"][row])
    index = int(shares.argmax())
    return _get_class_name(names, int(truth)), f"{_get_class_name(names, index)} ({format_percent(shares[index], 0)})"


def _describe_labels(
    names: list[str] | None, truth: NDArray[Any], values: Mapping[str, NDArray[Any]], row: int
) -> tuple[str, str]:
    def format_labels(indices: NDArray[Any]) -> str:
        shown = [_get_class_name(names, int(index)) for index in indices[:_MAX_SHOWN_LABELS]]
        return ", ".join(shown) + (", …" if len(indices) > _MAX_SHOWN_LABELS else "") or "none"

    # A logit above 0 is a probability above one half.
    return format_labels(np.flatnonzero(truth > 0.5)), format_labels(np.flatnonzero(values["logits"][row] > 0))


def _describe_numbers(
    names: list[str] | None, truth: NDArray[Any], values: Mapping[str, NDArray[Any]], row: int
) -> tuple[str, str]:
    return _format_values(truth), _format_values(values["value"][row])


def _describe_mask(
    names: list[str] | None, truth: NDArray[Any], values: Mapping[str, NDArray[Any]], row: int
) -> tuple[str, str]:
    # 255 is the label of ignored pixels in masks.
    counted = truth != 255
    right = (values["logits"][row].argmax(0) == truth)[counted].mean() if counted.any() else 1.0
    return f"{len(np.unique(truth[counted]))} classes", f"{format_percent(right, 1)} of the pixels"


_DESCRIBERS = {
    "classification": _describe_class,
    "multilabel": _describe_labels,
    "regression": _describe_numbers,
    "segmentation": _describe_mask,
}


def _is_wrong(kind: str, truth: str, predicted: str) -> bool:
    """Return whether the predicted labels are wrong; False for numbers and masks, which are hardly ever exact."""
    return kind in ("classification", "multilabel") and predicted.split(" (")[0] != truth


def _build_images(
    kind: str, x: NDArray[Any], truth: NDArray[Any], values: Mapping[str, NDArray[Any]], row: int
) -> list[NDArray[np.uint8]]:
    """Return the image; for masks also the true and the predicted mask."""
    if kind != "segmentation":
        return [convert_to_image(x)]
    return [
        convert_to_image(x),
        render_class_mask(truth.astype(np.uint8)),
        render_class_mask(values["logits"][row].argmax(0).astype(np.uint8)),
    ]


def _render_sheet(tiles: list[Tile]) -> NDArray[np.uint8]:
    from mlscale.data.images.pil import open_image

    with open_image(draw_contact_sheet(tiles)[0]) as picture:
        return np.asarray(picture.convert("RGB"))


def _get_class_names(trainer: Trainer) -> list[str] | None:
    data: Any = getattr(trainer, "datamodule", None)
    names = getattr(data.facts(), "class_names", None) if hasattr(data, "facts") else None
    return list(names) if names else None


def _get_class_name(names: list[str] | None, index: int) -> str:
    return names[index] if names is not None and index < len(names) else str(index)


def _format_values(values: NDArray[Any]) -> str:
    return ", ".join(f"{value:.4g}" for value in np.atleast_1d(values)[:_MAX_SHOWN_LABELS])


def _compute_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    # The largest is subtracted so that `exp` does not overflow.
    shares: NDArray[Any] = np.exp(logits - logits.max())
    shares /= shares.sum()
    return shares
