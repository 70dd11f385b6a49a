"""What joined a run from outside does once its fit is over, and what it tells.

A callback with a method `after_fit`, of (trainer, module), is called on the first rank alone, after everything that the
ranks do together: the others are done, nobody waits in a collective, so it may take its time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule

from mlscale.errors import MLScaleError
from mlscale.train.checkpoint.io import load
from mlscale.train.graceful_stop import stop_if_asked


@dataclass(frozen=True)
class Told:
    """What came of it.

    Attributes:
        metrics: for the run's table, `{name_unit: value}`.
        remark: for its sentence.
        ok: whether what was asked for holds.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    remark: str = ""
    ok: bool = True


def after_fit(trainer: Any, module: LightningModule) -> list[Told]:
    """Call those that have something to do, in their order.

    Raises:
        MLScaleError: a signal asks the run to stop, which it does before the next of them; what one of them raises.
    """
    if not trainer.is_global_zero:
        return []
    told = []
    for callback in trainer.callbacks:
        if hasattr(callback, "after_fit"):
            stop_if_asked(type(callback).__name__)
            told.append(callback.after_fit(trainer, module))
    return [each for each in told if each is not None]


def best_checkpoint(trainer: Any) -> Path | None:
    """The run's best checkpoint, the last one where it picks none; None where it keeps none."""
    callback = trainer.checkpoint_callback
    folder = getattr(callback, "dirpath", None)
    paths = [getattr(callback, "best_model_path", ""), f"{folder}/last.ckpt" if folder else ""]
    return next((Path(path) for path in paths if path and Path(path).is_file()), None)


def load_best(trainer: Any, module: LightningModule) -> Path:
    """Give the module the weights of the best checkpoint; returns its path.

    Raises:
        MLScaleError: there is none, or it can't be read.
    """
    path = best_checkpoint(trainer)
    if path is None:
        raise MLScaleError(
            "the run has saved no checkpoint",
            where=str(trainer.default_root_dir),
            fix="callbacks=default, which saves the best and the last",
        )
    module.load_state_dict(load(path)["state_dict"])
    return path


@contextlib.contextmanager
def alone(data: Any) -> Iterator[None]:
    """In this block a data module of ours knows of no trainer: its loaders give one process every sample."""
    if not hasattr(type(data), "promises"):  # anybody else's may need it, and Lightning shares its loaders out later
        yield
        return
    before, data.trainer = data.trainer, None
    try:
        yield
    finally:
        data.trainer = before
