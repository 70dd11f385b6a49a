"""Samples for the page of a run: inputs of its first batch, and predictions of its last validation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from numpy.typing import NDArray
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from mlscale.atomic_files import make_folders, write_json
from mlscale.data.inspection.shown_samples import ShownSample, build_sample_blocks
from mlscale.errors import MLScaleError
from mlscale.evaluate.collect_predictions import PredictionCollector, find_measured_type
from mlscale.evaluate.sample_collector import SampleCollector, describe_task_info
from mlscale.evaluate.worst_samples import build_worst_blocks
from mlscale.report import Figure, Heading
from mlscale.report.figures import convert_from_blocks
from mlscale.report.text import format_count
from mlscale.runs.recover import is_run_folder
from mlscale.tasks.batch import get_batch_size
from mlscale.train.lightning.trainer_parts import get_data_module

_SECTIONS = "logs/report"  # below the run folder: a file of figures for each section of the page
_WORST = 14  # samples of the largest losses
_MAX_IMAGE_BYTES = 90_000  # of a contact sheet: the page has two, and is to be sent by mail


class RunReport(pl.Callback):
    """A callback that keeps samples for the run's page, `results/train.html`, and writes them when the fit ends:

    - inputs of the first training batch, as the model gets them,
    - of the last validation the plots of the task's type, and the samples of the largest losses.

    A step costs nothing, but for the first. A validation computes its forward passes once, for both; at most `samples`
    of its samples are collected, of batches at equal distances, by the first process. Nothing here ends a training:
    where a sample can't be shown, the page gives the reason.

    Args:
        inputs: samples of the first batch; 0 for none.
        samples: samples of a validation; 0 for none.
    """

    def __init__(self, inputs: int = 14, samples: int = 2048) -> None:
        if inputs < 0 or samples < 0:
            key, value = ("inputs", inputs) if inputs < 0 else ("samples", samples)
            raise MLScaleError(
                f"callbacks.report.{key} is {value}",
                where=f"callbacks.report.{key}",
                why="it is a number of samples",
                fix=f"callbacks.report.{key}=0, for none",
            )
        self.inputs, self.samples = inputs, samples
        self._first: list[ShownSample] | None = None
        self._running: _ValidationSamples | None = None
        self._complete: _ValidationSamples | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if self._first is None and trainer.is_global_zero:
            self._first = _copy_samples(batch, self.inputs)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Sharded models compute with all processes: one alone would wait for the others.
        is_whole = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        if trainer.sanity_checking or not self.samples or not trainer.is_global_zero or not is_whole:
            return
        if find_measured_type(pl_module) is not None:
            self._running = _ValidationSamples(trainer, pl_module, self.samples)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._running is not None and dataloader_idx == 0:
            self._running.collect_batch(trainer, pl_module, batch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._running is not None:
            self._running.stop(trainer, pl_module)
            self._complete, self._running = self._running, None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write_blocks(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._running is not None:
            self._running.stop(trainer, pl_module)
        # The error to report is that of the run: a full disk would raise another one.
        with contextlib.suppress(MLScaleError):
            self._write_blocks(trainer)

    def _write_blocks(self, trainer: pl.Trainer) -> None:
        """Write the figures of this attempt; sections that it has nothing for are left as an earlier one wrote them."""
        folder = Path(trainer.default_root_dir)
        if not trainer.is_global_zero or not is_run_folder(folder):
            return
        sections = {
            "inputs": _build_section(lambda: _build_input_blocks(trainer, self._first or [])),
            "predictions": _build_section(self._complete.build_blocks) if self._complete else [],
        }
        for name, blocks in sections.items():
            if blocks:
                make_folders(folder / _SECTIONS)
                write_json(folder / _SECTIONS / f"{name}.json", {"blocks": convert_from_blocks(blocks)})


class _ValidationSamples:
    """The samples of one validation: of every n-th batch, so that data in the order of its classes has all of them."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule, most: int) -> None:
        self._most, self._every = most, 0  # known from the first batch
        self._batches = trainer.num_val_batches[0] if trainer.num_val_batches else math.inf
        task_type = find_measured_type(module)
        assert task_type is not None
        self._collector = SampleCollector(task_type, describe_task_info(get_data_module(trainer)), worst=_WORST)
        self._reader = PredictionCollector(self._collector)
        self._reader.on_validation_start(trainer, module)
        self._seen, self._collected, self._problem = 0, 0, ""

    def collect_batch(self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, index: int) -> None:
        """Collect the batch, if it is one of those that are shown."""
        size = get_batch_size(batch)
        if not self._every:
            total = size * self._batches
            self._every = max(1, math.ceil(total / self._most)) if math.isfinite(total) else 1
        self._seen += size
        if index % self._every or self._problem or self._collected >= self._most:
            return
        self._collected += size
        try:
            self._reader.on_validation_batch_end(trainer, module, None, batch, index)
        # A user's `predict_step` can raise anything, and the training does not need it.
        except Exception as error:
            self._problem = _describe_error(error)

    def stop(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Restore the module's own forward pass."""
        self._reader.on_validation_end(trainer, module)

    def build_blocks(self) -> list[Figure]:
        """Return the plots of the task's type, and the samples of the largest losses."""
        if self._problem:
            return [Heading("Predictions", f"None are shown: {self._problem}")]
        gathered = self._collector.collect_samples()
        if not len(gathered):
            return []
        text = f"Of the last validation: {format_count(len(gathered), 'sample')}"
        text += f" of {self._seen:,}." if len(gathered) < self._seen else "."
        plots = gathered.task_type.build_training_plots(gathered)
        blocks = [*plots, *build_worst_blocks(gathered, _MAX_IMAGE_BYTES)]
        # The plots of a type may open with a heading of their own: one below another would head nothing.
        if blocks and isinstance(blocks[0], Heading):
            title = "Predictions" if plots else blocks[0].title
            return [Heading(title, f"{text} {blocks[0].text}".strip()), *blocks[1:]]
        return [Heading("Predictions", text), *blocks] if blocks else []


def _build_section(build: Callable[[], list[Figure]]) -> list[Figure]:
    """Return the figures, or the reason why there are none: a page must not end a training."""
    try:
        return build()
    except Exception as error:  # of a user's task type or data module, which can raise anything
        return [Heading("Samples", f"They can't be shown: {_describe_error(error)}")]


def _build_input_blocks(trainer: pl.Trainer, samples: Sequence[ShownSample]) -> list[Figure]:
    if not samples:
        return []
    data: Any = get_data_module(trainer)
    facts = data.facts() if hasattr(data, "facts") else None
    encoder = data.encoder() if facts is not None and hasattr(data, "encoder") else None
    blocks = build_sample_blocks(samples, facts, encoder, describe_task_info(data).targets, _MAX_IMAGE_BYTES)
    text = "The first samples of the first batch, as the model gets them: after augmentation."
    return [Heading("Inputs", text), *blocks] if blocks else []


def _copy_samples(batch: object, count: int) -> list[ShownSample]:
    """Return the first samples of a batch; none of a batch that is neither {"x", "y"} nor (x, y)."""
    pair = batch[:2] if isinstance(batch, Sequence) and not isinstance(batch, str) else ()
    x, y = (batch.get("x"), batch.get("y")) if isinstance(batch, Mapping) else pair if len(pair) == 2 else (None, None)
    if not (isinstance(x, Tensor) and isinstance(y, Tensor) and x.ndim > 1 and y.ndim and len(x) == len(y)):
        return []
    keys = batch.get("key") if isinstance(batch, Mapping) else None
    names = [str(key) for key in keys[:count]] if keys is not None else [f"#{row}" for row in range(min(count, len(x)))]
    # Masks need two images for each sample.
    names = names[: count if y.ndim < 3 else count // 2]
    some, truths = ([row.detach().cpu() for row in tensor[: len(names)]] for tensor in (x, y))
    return [
        ShownSample(name, _convert_to_array(one), _convert_to_array(truth))
        for name, one, truth in zip(names, some, truths, strict=False)
    ]


def _convert_to_array(values: Tensor) -> NDArray[Any]:
    # Cloned: a loader uses its memory again. numpy has no bfloat16.
    array: NDArray[Any] = (values.float() if values.is_floating_point() else values).clone().numpy()
    return array


def _describe_error(error: Exception) -> str:
    text = error.what if isinstance(error, MLScaleError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}"
