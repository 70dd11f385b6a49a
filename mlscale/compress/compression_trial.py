"""Find before a fit what would keep its model from being compressed, with the weights that the fit starts from."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.utilities.seed import isolate_rng

from mlscale.compress.metric_drop import check_judgeable
from mlscale.culprit import find_user_line, summarize_error
from mlscale.data.data_module import OrderedData
from mlscale.errors import MLScaleError
from mlscale.export.measure_export import describe_served_model
from mlscale.export.onnx_export import export_onnx
from mlscale.task_types.registry import resolve_task_type

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
