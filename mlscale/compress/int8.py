"""Quantise to int8 after training, if faster and accurate enough: a step of a run, or of `mlscale compress`."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.seed import isolate_rng

from mlscale.compress import stored_model as stored
from mlscale.compress.int8_verdict import Int8Bounds, compare_int8
from mlscale.compress.metric_drop import CorrectnessDrop, MetricDrop, check_judgeable, format_metric
from mlscale.compress.quantize import (
    METHODS,
    Method,
    can_int8_overflow,
    choose_method,
    quantize_model,
    read_calibration_samples,
)
from mlscale.compress.stored_model import CompressedModel
from mlscale.culprit import find_user_line, summarize_error, wrap_unforeseen_error
from mlscale.data.data_module import OrderedData
from mlscale.errors import MLScaleError
from mlscale.export.measure_export import describe_served_model
from mlscale.export.onnx_export import export_onnx
from mlscale.export.required_extras import require_extra
from mlscale.export.served_module import require_predictions
from mlscale.export.validation_samples import iterate_validation_batches
from mlscale.report import Result, save_result
from mlscale.report.text import format_size_change
from mlscale.runs.amend import update_manifest
from mlscale.runs.folder import RunFolder
from mlscale.stats.intervals import Interval
from mlscale.task_types.registry import resolve_task_type
from mlscale.train.after_fit import AfterFitResult, hide_trainer, load_best_checkpoint
from mlscale.train.lightning.trainer_parts import get_callbacks, get_data_module

if TYPE_CHECKING:
    from mlscale.compress.stored_model import CompressedModel

_NAME = "int8"


class Int8(Callback):
    """A callback that quantises a trained model to int8 by ONNX Runtime, and compares it with fp32.

    In a run it starts after the fit, with the best checkpoint, on the first rank alone. It does not change training. A
    model that can't be compressed does not fail the run; the result reports it.

    Args:
        method: static (convolutions), dynamic (attention, plain matrices), or auto, which chooses by the graph.
        calibration_samples: number of training samples that the ranges of activations are computed from.
        samples: number of validation samples that the task's metric is measured on; None for all.
        max_accuracy_drop: of a metric that is a share, such as the accuracy or an IoU; must hold with 95 % confidence.
        max_relative_drop: of a metric that is a number, such as an absolute error or nats per token: how much worse it
            may get, as a share of the fp32 metric; must hold with 95 % confidence.
        min_agreement: mean share of equal predictions, where predictions are not numbers.
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
        max_relative_drop: float = 0.02,
        min_agreement: float = 0.95,
        min_speedup: float = 1.05,
        required: bool = False,
    ) -> None:
        # When the run is built: a missing package must not be found after hours of training.
        require_extra("compress", "onnx", "onnxscript", "onnxruntime")
        for name, count in (("calibration_samples", calibration_samples), ("samples", samples)):
            if count is not None and count < 1:
                raise MLScaleError(
                    f"{name} is {count}", where=f"compress.int8.{name}", fix=f"compress.int8.{name}=1, or more"
                )
        self.method, self.calibration_samples, self.samples = method, calibration_samples, samples
        self.bounds = Int8Bounds(max_accuracy_drop, max_relative_drop, min_agreement, min_speedup)
        self.required = required

    def compress_task(self, task: LightningModule, data: LightningDataModule) -> CompressedModel:
        """Export and quantise a task, and compare both models.

        Args:
            task: with its weights; it stays on the CPU, in evaluation mode.
            data: its data module, set up for a fit.

        Raises:
            MLScaleError: no metric of the task is known, it has nothing to quantise, or ONNX or ONNX Runtime can't
                express it.
        """
        task_type, _, served = describe_served_model(task, data)
        check_judgeable(task_type)
        fp32 = export_onnx(served)
        method = self.find_method(fp32)
        # A dynamic model computes the ranges of activations as it runs.
        samples = read_calibration_samples(data, self.calibration_samples) if method == "static" else None
        int8 = quantize_model(fp32, method, samples)
        batches = iterate_validation_batches(data, limit=self.samples)
        metrics = compare_int8(fp32, int8, batches, task_type, self.bounds.min_speedup)
        return CompressedModel(
            model=int8,
            method=method,
            calibrated=0 if samples is None else len(next(iter(samples.values()))),
            reduced_range=can_int8_overflow(),
            metrics=metrics,
            bounds=self.bounds,
            problems=tuple(metrics.list_unmet_bounds(self.bounds)),
        )

    def find_method(self, model: bytes) -> Method:
        """Return the method for a serialised fp32 model.

        Raises:
            MLScaleError: it has nothing to quantise.
        """
        return choose_method(model) if self.method == "auto" else self.method

    def carry_out(
        self,
        task: LightningModule,
        data: LightningDataModule,
        run: RunFolder,
        checkpoint: Path,
        overrides: Sequence[str],
    ) -> Result:
        """Compress, write `<run>/compressed/` and `results/compress.json`, and return the result.

        Args:
            overrides: as typed; kept in the result.
        """
        start = time.perf_counter()
        compressed = self.compress_task(task, data)
        folder = run.path / stored.FOLDER
        stored.write_compressed_model(folder, compressed, name=str(run.run["name"]), checkpoint=checkpoint)
        result = build_compression_result(
            compressed,
            run=run.path,
            checkpoint=checkpoint,
            folder=folder,
            required=self.required,
            seconds=time.perf_counter() - start,
        )
        result = save_result(replace(result, overrides=overrides), run)
        # A manifest that lists an earlier result needs the digests of the new one.
        update_manifest(run.path, "results/compress.json", "results/compress.html")
        return result

    # In a run.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise an error before the first step if the task predicts nothing, or there will be no checkpoint or data."""
        if stage != "fit":
            return
        require_predictions(pl_module)
        if not any(isinstance(callback, ModelCheckpoint) for callback in get_callbacks(trainer)):
            raise MLScaleError(
                "there will be no checkpoint to compress",
                where="compress",
                why="the run keeps none",
                fix="callbacks=default",
            )
        if get_data_module(trainer) is None:
            raise MLScaleError(
                "no data to calibrate and judge int8 on",
                where="compress",
                why="the run has no data module",
                fix="data._target_=<your LightningDataModule>, or compress=none",
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise an error before the first step if the model could not be judged, exported or quantised after the last.

        In `setup` the module may lack layers that its own `setup` or `configure_model` makes.
        """
        data = get_data_module(trainer)
        if trainer.is_global_zero and data is not None:
            try_compression(pl_module, data, self.find_method)

    def after_fit(self, trainer: Trainer, pl_module: LightningModule) -> AfterFitResult:
        """Compress the best checkpoint."""
        try:
            checkpoint = load_best_checkpoint(trainer, pl_module)
            print(f"compress  {checkpoint.name} to int8, judged on validation samples", file=sys.stderr, flush=True)
            run = RunFolder.open(trainer.default_root_dir)
            # Other ranks have ended: the loaders must give this one all samples, not its share.
            data = get_data_module(trainer)
            assert data is not None  # a run without one was refused at its start
            with hide_trainer(data):
                result = self.carry_out(pl_module, data, run, checkpoint, run.run["overrides"])
        # The training itself has succeeded: it must not fail for a model that ONNX can't express, nor for one whose
        # forward can't compute another batch than those of training.
        except Exception as error:
            if not isinstance(error, MLScaleError) and not find_user_line(error):
                raise
            failure = error if isinstance(error, MLScaleError) else wrap_unforeseen_error(error)
            line = failure.where if failure is not error else ""
            remark = ": ".join(filter(None, ("int8 failed", failure.what, failure.why, line)))
            return AfterFitResult({f"{_NAME}_kept": 0}, remark, ok=not self.required)
        return AfterFitResult(select_shown_metrics(result), format_compression(result), ok=result.ok)


_KNOWN_PACKAGES = ("mlscale", "torch", "torchmetrics")
"""Packages whose modules are tested to be exportable, so that a run of these alone need not be delayed by a trial."""


def try_compression(task: LightningModule, data: LightningDataModule, check_graph: Callable[[bytes], object]) -> None:
    """Raise the error that would end the compression of the trained model, as far as it does not depend on its weights.

    The trial reads one validation sample and exports a copy of the task, on the CPU; it changes nothing of the fit.

    Args:
        task: set up for the fit, on any device.
        data: set up for the fit.
        check_graph: raises an error for an exported model that can't be quantised.

    Raises:
        MLScaleError: no metric of the task is known, it does not give a row for each sample, ONNX can't express it, it
            has nothing to quantise, or there is not exactly one validation loader with samples.
    """
    if (stated := resolve_task_type(task)) is not None:
        check_judgeable(stated)
    if _is_builtin(task, data):
        return
    try:
        # A shuffled loader and the exporter draw from the global generators, which the fit must find as they are.
        with isolate_rng(include_cuda=False):
            task_type, _, served = describe_served_model(_copy_task(task), _copy_data(data))
            check_judgeable(task_type)
            check_graph(export_onnx(served))
    except MLScaleError as problem:
        if "compress=none" not in problem.fix:
            problem.fix = f"{problem.fix}\ncompress=none, which trains without it".lstrip()
        raise
    except Exception as error:
        # A module may still lack what its first training step gives it: only after the fit this is an error.
        line = find_user_line(error)
        reason = ": ".join(filter(None, (summarize_error(error), line)))
        print(f"compress  int8 could not be tried before the fit: {reason}", file=sys.stderr, flush=True)


def _is_builtin(task: LightningModule, data: LightningDataModule) -> bool:
    """Return whether nothing of these is a user's or of a package whose models may not be exportable."""
    packages = {type(part).__module__.partition(".")[0] for part in (*task.modules(), data)}
    return isinstance(data, OrderedData) and packages <= set(_KNOWN_PACKAGES)


def _copy_task(task: LightningModule) -> LightningModule:
    """Return a copy of the task, in evaluation mode: the trial moves it to the CPU, and gives lazy layers a shape."""
    copied = copy.deepcopy(task)
    # Lightning leaves the trainer out of a copy; a forward may read it, as it can after the fit.
    copied.trainer = task.trainer
    return copied.eval()


def _copy_data(data: LightningDataModule) -> LightningDataModule:
    """Return a data module with a position of its own; what was read is shared."""
    copied = copy.copy(data)
    if isinstance(copied, OrderedData):
        copied.trainer = None  # every sample, not the share of a rank
    return copied


_PREFIX = "int8_val/"


def build_compression_result(
    compressed: CompressedModel, *, run: Path, checkpoint: Path, folder: Path, required: bool, seconds: float
) -> Result:
    """Return the result of the command; not ok if int8 is required and not kept."""
    metrics, source = compressed.metrics, f"{checkpoint.name} of {run.name}"
    before, after, speedup = metrics.single.first, metrics.single.second, metrics.speedup
    metric = metrics.metric
    name, size = metric.metric.replace("_", " "), format_size_change(metrics.size_ratio)
    measured = (
        f"at least {speedup.low:.2f}× as fast as fp32 ({speedup.low:.2f} to {speedup.high:.2f}; one sample on one "
        f"thread takes {after.cpu_ms:.3g} ms of CPU time, fp32 {before.cpu_ms:.3g}), {size}, "
        f"{name} {format_metric(metric, metric.int8)}, fp32 {format_metric(metric, metric.fp32)}: "
        f"{metric.describe_change()}"
    )
    # Both sentences have all measurements: those of a rejected model show how far it is from its bounds.
    if compressed.is_kept:
        sentence = f"int8 of {source} is kept{metrics.describe_busy_machine()}: {measured}"
    else:
        sentence = f"int8 of {source} is not kept, fp32 stays: {'; '.join(compressed.problems)}. It is {measured}"
    calibration = f", calibrated on {compressed.calibrated:,} training samples" if compressed.calibrated else ""
    return Result(
        command="compress",
        # A model that is not worth it is a result, not a failure: small models are often slower in int8.
        ok=compressed.is_kept or not required,
        sentence=f"{sentence} ({METHODS[compressed.method]}{calibration})",
        metrics={
            "kept": int(compressed.is_kept),
            **_flatten_interval("speedup", metrics.speedup),
            **_flatten_interval("batch_32_speedup", metrics.batch_speedup),
            **_flatten_metric(metric),
            **({} if metrics.agreement is None else {"agreement": metrics.agreement}),
            "samples": metrics.samples,
            "calibration_samples": compressed.calibrated,
            "int8_cpu_ms": after.cpu_ms,
            "fp32_cpu_ms": before.cpu_ms,
            **metrics.single.list_wall_times("fp32", "int8"),
            "int8_batch_32_cpu_ms": metrics.batch.second.cpu_ms,
            "fp32_batch_32_cpu_ms": metrics.batch.first.cpu_ms,
            **metrics.batch.list_wall_times("fp32_batch_32", "int8_batch_32"),
            "model_size_bytes": metrics.int8_bytes,
            "fp32_model_size_bytes": metrics.fp32_bytes,
            "size_ratio": metrics.size_ratio,
            "time_s": seconds,
        },
        artifacts={"run": str(run), "checkpoint": str(checkpoint), "compressed": str(folder)},
    )


def _flatten_interval(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _flatten_metric(metric: MetricDrop) -> dict[str, float]:
    name, drop = metric.metric, metric.drop
    sign = 1 if metric.higher_is_better else -1
    known = {
        f"{_PREFIX}{name}": metric.int8,
        f"fp32_val/{name}": metric.fp32,
        f"{name}_drop": sign * (metric.fp32 - metric.int8),
    }
    if metric.is_relative:
        return known | {f"{name}_relative_drop": drop.value, f"{name}_relative_drop_at_most": drop.high}
    known |= {f"{name}_drop": drop.value, f"{name}_drop_at_most": drop.high}
    if isinstance(metric, CorrectnessDrop):
        known |= {"right_in_fp32_alone": metric.fp32_only, "right_in_int8_alone": metric.int8_only}
    return known


def get_metric_name(result: Result) -> str:
    """Return the name of the metric that a compression was judged by."""
    return next(key for key in result.metrics if key.startswith(_PREFIX)).removeprefix(_PREFIX)


def select_shown_metrics(result: Result) -> dict[str, float]:
    """Return the metrics that the table of a training run shows, too."""
    name = get_metric_name(result)
    # The few that fit; all are in results/compress.json. Every name has the prefix once, 'int8_val/accuracy' included.
    shown = ("kept", "speedup", "speedup_low", "speedup_high", f"{_PREFIX}{name}", f"{name}_drop")
    return {f"int8_{key.removeprefix('int8_')}": result.metrics[key] for key in shown}


def format_compression(result: Result) -> str:
    """Return the part of a training run's sentence about the compression."""
    metrics, name = result.metrics, get_metric_name(result)
    status = "int8 kept" if metrics["kept"] else "int8 not kept"
    speed = f"at least {metrics['speedup_low']:.2f}× as fast"
    return f"{status}: {speed}, {name.replace('_', ' ')} {metrics[_PREFIX + name]:.4f}"
