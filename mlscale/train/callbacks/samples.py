"""Predictions of a few validation samples, as images and a table in every tracker, after each validation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from mlscale.errors import MLScaleError
from mlscale.report.contact_sheet import Tile, as_image, as_mask, sheet
from mlscale.report.text import percent
from mlscale.tasks.batch import unpack
from mlscale.train.loggers import log_image, log_table

_SHOWN_LABELS = 5


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
        if trainer.is_global_zero and (kind := getattr(pl_module, "kind", None)) not in _SAID:
            task = f"a {kind} task" if kind else type(pl_module).__name__
            tqdm.write(f"callbacks.samples has no effect: {task} says nothing of single samples", file=sys.stderr)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        kind = getattr(pl_module, "kind", None)
        if batch_idx or dataloader_idx or trainer.sanity_checking or not trainer.is_global_zero or kind not in _SAID:
            return
        # One small forward pass per validation, on the first batch alone: the others are not delayed.
        given = unpack(batch)
        # The weights are left out: they do not change a prediction.
        few = {"x": given.x[: self.count], "y": given.y[: self.count]}
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            told = pl_module.predict_step(few, 0)
        self._show(trainer, kind, batch, few, told)

    def _show(self, trainer: Any, kind: str, batch: Any, few: Mapping[str, Tensor], told: Mapping[str, Tensor]) -> None:
        x, y = few["x"].float().cpu().numpy(), few["y"].cpu().numpy()
        keys = batch.get("key") if isinstance(batch, Mapping) else None
        keys = [str(key) for key in keys[: len(x)]] if keys is not None else [str(row) for row in range(len(x))]
        values = {name: value.float().cpu().numpy() for name, value in told.items()}
        names = _class_names(trainer)
        step = (
            trainer.fit_loop.epoch_loop._batches_that_stepped
        )  # as Lightning's own entries of this validation have it
        rows = [(key, *_SAID[kind](names, y[row], values, row)) for row, key in enumerate(keys)]
        # (n, channels, height, width): other inputs have a table, and no images.
        if x.ndim == 4:
            tiles = [
                Tile(_pictures(kind, x[row], y[row], values, row), truth, said, _wrong(kind, truth, said))
                for row, (_, truth, said) in enumerate(rows)
            ]
            log_image(trainer.loggers, "val/samples", _pixels(tiles), step)
        log_table(trainer.loggers, "val/samples_table", ("key", "truth", "prediction"), rows, step)


def _class(names: list[str] | None, truth: Any, values: Mapping[str, NDArray[Any]], row: int) -> tuple[str, str]:
    shares = _softmax(values["logits"][row])
    place = int(shares.argmax())
    return _name(names, int(truth)), f"{_name(names, place)} ({percent(shares[place], 0)})"


def _labels(names: list[str] | None, truth: Any, values: Mapping[str, NDArray[Any]], row: int) -> tuple[str, str]:
    def told(places: NDArray[Any]) -> str:
        shown = [_name(names, int(place)) for place in places[:_SHOWN_LABELS]]
        return ", ".join(shown) + (", …" if len(places) > _SHOWN_LABELS else "") or "none"

    # A logit above 0 is a probability above one half.
    return told(np.flatnonzero(truth > 0.5)), told(np.flatnonzero(values["logits"][row] > 0))


def _numbers(names: list[str] | None, truth: Any, values: Mapping[str, NDArray[Any]], row: int) -> tuple[str, str]:
    return _listed(truth), _listed(values["value"][row])


def _mask(names: list[str] | None, truth: Any, values: Mapping[str, NDArray[Any]], row: int) -> tuple[str, str]:
    # 255 is the label of ignored pixels in masks.
    counted = truth != 255
    right = (values["logits"][row].argmax(0) == truth)[counted].mean() if counted.any() else 1.0
    return f"{len(np.unique(truth[counted]))} classes", f"{percent(right, 1)} of the pixels"


_SAID = {"classification": _class, "multilabel": _labels, "regression": _numbers, "segmentation": _mask}


def _wrong(kind: str, truth: str, said: str) -> bool:
    """Return whether the predicted labels are wrong; False for numbers and masks, which are hardly ever exact."""
    return kind in ("classification", "multilabel") and said.split(" (")[0] != truth


def _pictures(
    kind: str, x: NDArray[Any], truth: NDArray[Any], values: Mapping[str, NDArray[Any]], row: int
) -> list[NDArray[np.uint8]]:
    """Return the image; for masks also the true and the predicted mask."""
    if kind != "segmentation":
        return [as_image(x)]
    return [as_image(x), as_mask(truth.astype(np.uint8)), as_mask(values["logits"][row].argmax(0).astype(np.uint8))]


def _pixels(tiles: list[Tile]) -> NDArray[np.uint8]:
    from mlscale.data.images.pil import open_image

    with open_image(sheet(tiles)[0]) as picture:
        return np.asarray(picture.convert("RGB"))


def _class_names(trainer: Any) -> list[str] | None:
    data: Any = getattr(trainer, "datamodule", None)
    names = getattr(data.facts(), "class_names", None) if hasattr(data, "facts") else None
    return list(names) if names else None


def _name(names: list[str] | None, place: int) -> str:
    return names[place] if names is not None and place < len(names) else str(place)


def _listed(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in np.atleast_1d(values)[:_SHOWN_LABELS])


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    # The largest is subtracted so that `exp` does not overflow.
    shares: NDArray[Any] = np.exp(logits - logits.max())
    shares /= shares.sum()
    return shares
