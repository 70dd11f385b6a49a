"""Quantise to int8 after training, kept only if faster and accurate enough: a step of a run, or of `compress`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from mlscale.compress import compression_outcome as outcome
from mlscale.compress import stored_model as stored
from mlscale.compress.calibration_samples import calibration
from mlscale.compress.compressed_model import Compressed
from mlscale.compress.int8_verdict import Bounds, compare
from mlscale.compress.quantize import Method, method_of, quantized, saturates
from mlscale.errors import MLScaleError
from mlscale.export.onnx_export import export, served
from mlscale.export.required_extras import need
from mlscale.export.validation_samples import input_of, validation
from mlscale.report import Result, keep
from mlscale.runs.amend import amend
from mlscale.runs.folder import RunFolder
from mlscale.train.after_fit import Told, alone, load_best

_NAME = "int8"


class Int8(Callback):
    """A callback that quantises a trained classifier to int8 by ONNX Runtime, and compares it with fp32.

    In a run it starts after the fit, with the best checkpoint, on the first rank alone. It does not change training. A
    model that can't be compressed does not fail the run; the result reports it.

    Args:
        method: static (convolutions), dynamic (attention, plain matrices), or auto, which chooses by the graph.
        calibration_samples: number of training samples that the ranges of activations are computed from.
        samples: number of validation samples that accuracy is measured on; None for all.
        max_accuracy_drop: of the validation accuracy, as a share of the samples; must hold with 95 % confidence.
        min_agreement: share of the samples that must get the same class.
        min_speedup: CPU time of fp32 over that of int8, of one sample on one thread; must hold with 95 % confidence.
        required: true if a model that is not kept fails the gate: exit code 4.

    Raises:
        MLScaleError: the extra 'compress' is not installed, or a count is less than 1.
    """

    def __init__(
        self,
        method: Literal["auto", "static", "dynamic"] = "auto",
        calibration_samples: int = 256,
        samples: int | None = None,
        max_accuracy_drop: float = 0.02,
        min_agreement: float = 0.95,
        min_speedup: float = 1.05,
        required: bool = False,
    ) -> None:
        # When the run is built: a missing package must not be found after hours of training.
        need("compress", "onnx", "onnxscript", "onnxruntime")
        for name, count in (("calibration_samples", calibration_samples), ("samples", samples)):
            if count is not None and count < 1:
                raise MLScaleError(
                    f"{name} is {count}", where=f"compress.int8.{name}", fix=f"compress.int8.{name}=1 or more"
                )
        self.method, self.calibration_samples, self.samples = method, calibration_samples, samples
        self.bounds = Bounds(max_accuracy_drop, min_agreement, min_speedup)
        self.required = required

    def compress(self, task: LightningModule, data: Any) -> Compressed:
        """Export and quantise a task, and compare both models.

        Args:
            task: with its weights; it stays on the CPU, in evaluation mode.
            data: its data module, set up for a fit.

        Raises:
            MLScaleError: the task gives no logits, or ONNX or ONNX Runtime can't express it.
        """
        given = input_of(data)
        fp32 = export(served(task, given), given)
        method: Method = method_of(fp32) if self.method == "auto" else self.method
        # A dynamic model computes the ranges of activations as it runs.
        samples = calibration(data, self.calibration_samples) if method == "static" else None
        int8 = quantized(fp32, method, samples)
        figures = compare(fp32, int8, validation(data, limit=self.samples), self.bounds.min_speedup)
        return Compressed(
            model=int8,
            method=method,
            calibrated=0 if samples is None else len(samples),
            reduced_range=saturates(),
            figures=figures,
            bounds=self.bounds,
            problems=tuple(figures.problems(self.bounds)),
        )

    def carry_out(self, task: LightningModule, data: Any, run: RunFolder, checkpoint: Path) -> Result:
        """Compress, write `<run>/compressed/` and `results/compress.json`, and return the result."""
        start = time.perf_counter()
        compressed = self.compress(task, data)
        folder = run.path / stored.FOLDER
        stored.write(folder, compressed, name=str(run.run["name"]), checkpoint=checkpoint)
        result = outcome.result(
            compressed,
            run=run.path,
            checkpoint=checkpoint,
            folder=folder,
            required=self.required,
            seconds=time.perf_counter() - start,
        )
        result = keep(result, run)
        # A manifest that lists an earlier result needs the digests of the new one.
        amend(run.path, "results/compress.json", "results/compress.html")
        return result

    # In a run.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise an error before the first step if there will be no checkpoint or no data for the compression."""
        if stage != "fit":
            return
        if not any(isinstance(callback, ModelCheckpoint) for callback in trainer.callbacks):  # type: ignore[attr-defined]  # set by a connector
            raise MLScaleError(
                "there will be no checkpoint to compress",
                where="compress",
                why="the run keeps none",
                fix="callbacks=default",
            )
        if trainer.datamodule is None:  # type: ignore[attr-defined]
            raise MLScaleError(
                "there is no data to calibrate and judge int8 on",
                where="compress",
                why="the run has no data module",
                fix="data._target_=<your LightningDataModule>, or compress=none",
            )

    def after_fit(self, trainer: Any, pl_module: LightningModule) -> Told:
        """Compress the best checkpoint."""
        try:
            checkpoint = load_best(trainer, pl_module)
            print(f"compress  {checkpoint.name} to int8, judged on validation samples", file=sys.stderr, flush=True)
            run = RunFolder.open(trainer.default_root_dir)
            # Other ranks have ended: the loaders must give this one all samples, not its share.
            with alone(trainer.datamodule):
                result = self.carry_out(pl_module, trainer.datamodule, run, checkpoint)
        except MLScaleError as error:
            # The training itself has succeeded: it must not fail for a model that ONNX can't express.
            why = f": {error.why}" if error.why else ""
            return Told({f"{_NAME}_kept": 0}, f"int8 failed: {error.what}{why}", ok=not self.required)
        return Told(outcome.shown(result), outcome.short(result), ok=result.ok)
