"""The hook `after_fit` of callbacks: work once a run's fit is over, and its results.

A callback with a method `after_fit`, of (trainer, module), is called on the first rank alone, after everything that the
ranks do together: the others are done and none waits in a collective, so it may take minutes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file
from mlscale.train.graceful_stop import raise_if_stop_requested
from mlscale.train.lightning.trainer_parts import get_callbacks


@dataclass(frozen=True)
class AfterFitResult:
    """The result of a callback's `after_fit`.

    Attributes:
        metrics: for the run's table, `{name_unit: value}`.
        remark: for its sentence.
        ok: whether the callback's condition holds.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    remark: str = ""
    ok: bool = True


def run_after_fit_hooks(trainer: Trainer, module: LightningModule) -> list[AfterFitResult]:
    """Call every callback that has `after_fit`, in their order; returns their results.

    Raises:
        MLScaleError: a signal requests the run to stop, before the next callback is called; or a callback raises it.
    """
    if not trainer.is_global_zero:
        return []
    results = []
    for callback in get_callbacks(trainer):
        if hasattr(callback, "after_fit"):
            raise_if_stop_requested(type(callback).__name__)
            results.append(callback.after_fit(trainer, module))
    return [result for result in results if result is not None]


def locate_best_checkpoint(trainer: Trainer) -> Path | None:
    """Return the run's best checkpoint, the last one where none is the best; None where none is saved."""
    callback = trainer.checkpoint_callback
    folder = getattr(callback, "dirpath", None)
    paths = [getattr(callback, "best_model_path", ""), f"{folder}/last.ckpt" if folder else ""]
    return next((Path(path) for path in paths if path and is_checkpoint(Path(path))), None)


def load_best_checkpoint(trainer: Trainer, module: LightningModule) -> Path:
    """Load the weights of the best checkpoint into the module; returns its path.

    Raises:
        MLScaleError: it does not exist or can't be read.
    """
    path = locate_best_checkpoint(trainer)
    if path is None:
        raise MLScaleError(
            "the run has saved no checkpoint",
            where=str(trainer.default_root_dir),
            fix="callbacks=default, which saves the best and the last",
        )
    module.load_state_dict(load_checkpoint_file(path)["state_dict"])
    return path


@contextlib.contextmanager
def hide_trainer(data: LightningDataModule) -> Iterator[None]:
    """Hide the trainer from a built-in data module in this block: its loaders give one process every sample."""
    # A third-party one may need its trainer, and Lightning splits its samples between ranks later.
    if not hasattr(type(data), "promises"):
        yield
        return
    before, data.trainer = data.trainer, None
    try:
        yield
    finally:
        data.trainer = before
