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
from mlscale.report.contact_sheet import Tile, convert_to_image, draw_contact_sheet, render_class_mask
from mlscale.task_types.registry import get_task_kind, resolve_task_type
from mlscale.task_types.task_type import TaskType
from mlscale.tasks.batch import unpack_batch
from mlscale.train.loggers import log_image, log_table
from mlscale.train.strategies import FullySharded


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
        if trainer.is_global_zero and _find_shown_type(pl_module) is None:
            kind = get_task_kind(pl_module)
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
        if batch_idx or dataloader_idx or trainer.sanity_checking:
            return
        # A sharded model is gathered by all processes: none of them predicts alone.
        is_sharded = isinstance(trainer.strategy, FullySharded)
        if not trainer.is_global_zero and not is_sharded:
            return
        task_type = _find_shown_type(pl_module)
        if task_type is None:
            return
        # One small forward pass per validation, on the first batch alone: the others are not delayed.
        given = unpack_batch(batch)
        # The weights are left out: they do not change a prediction.
        few = {"x": given.x[: self.count], "y": given.y[: self.count]}
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            predictions: Any = trainer.strategy.predict_step(few, 0) if is_sharded else pl_module.predict_step(few, 0)
        if trainer.is_global_zero:
            self._show_samples(trainer, task_type, batch, few, predictions)

    def _show_samples(
        self,
        trainer: Trainer,
        task_type: TaskType,
        batch: object,
        few: Mapping[str, Tensor],
        predictions: Mapping[str, Tensor],
    ) -> None:
        x, y = few["x"].float().cpu().numpy(), few["y"].cpu().numpy()
        keys = batch.get("key") if isinstance(batch, Mapping) else None
        keys = [str(key) for key in keys[: len(x)]] if keys is not None else [str(row) for row in range(len(x))]
        values = {name: value.float().cpu().numpy() for name, value in predictions.items()}
        names = _get_class_names(trainer)
        step = (
            trainer.fit_loop.epoch_loop._batches_that_stepped
        )  # as Lightning's own entries of this validation have it
        outputs = [{name: value[row] for name, value in values.items()} for row in range(len(keys))]
        rows = [(key, *task_type.describe_prediction(names, y[row], outputs[row])) for row, key in enumerate(keys)]
        # (n, channels, height, width): other inputs have a table, and no images.
        if x.ndim == 4:
            tiles = [
                Tile(
                    [
                        convert_to_image(x[row]),
                        *(
                            render_class_mask(mask.astype(np.uint8))
                            for mask in task_type.extract_masks(outputs[row], y[row])
                        ),
                    ],
                    truth,
                    predicted,
                    # Numbers and masks are hardly ever exact: nothing is marked as wrong.
                    task_type.exact_metric is not None and predicted.split(" (")[0] != truth,
                )
                for row, (_, truth, predicted) in enumerate(rows)
            ]
            log_image(trainer.loggers, "val/samples", _render_sheet(tiles), step)
        log_table(trainer.loggers, "val/samples_table", ("key", "truth", "prediction"), rows, step)


def _find_shown_type(task: LightningModule) -> TaskType | None:
    """Return the type of the task; None if it has none, or describes no samples."""
    task_type = resolve_task_type(task)
    return task_type if task_type is not None and task_type.shows_predictions else None


def _render_sheet(tiles: list[Tile]) -> NDArray[np.uint8]:
    from mlscale.data.decoding.pil import open_image

    with open_image(draw_contact_sheet(tiles)[0]) as picture:
        return np.asarray(picture.convert("RGB"))


def _get_class_names(trainer: Trainer) -> list[str] | None:
    data: Any = getattr(trainer, "datamodule", None)
    names = getattr(data.facts(), "class_names", None) if hasattr(data, "facts") else None
    return list(names) if names else None
