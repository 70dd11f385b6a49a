"""Starting from weights that are there: of a checkpoint the weights, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pytorch_lightning import LightningModule
from torch.nn.parameter import is_lazy

from mlscale.errors import MLScaleError
from mlscale.runs.initial import Initial
from mlscale.train.checkpoint_io import load
from mlscale.train.uncompiled import plain

_SHOWN = 5  # names of a kind


def start_from(task: LightningModule, initial: Initial) -> None:
    """Give `task` the weights of a checkpoint, all of them. No random number is drawn.

    Raises:
        MLScaleError: the file has changed or is gone, holds no weights or more than values, or other weights than the
            task has; then all names are told by kind.
    """
    try:
        initial.check()
        weights = load(initial.checkpoint).get("state_dict")
        if not isinstance(weights, Mapping):
            raise MLScaleError(
                "the checkpoint holds no weights", where=str(initial.checkpoint), why="it has no state_dict"
            )
        _check_fit(task.state_dict(), {plain(str(name)): value for name, value in weights.items()}, initial)
    except MLScaleError as error:
        error.unbuilt = True  # nothing has run yet
        raise
    task.load_state_dict(dict(weights))


def _check_fit(has: Mapping[str, Any], given: Mapping[str, Any], initial: Initial) -> None:
    # A lazy layer has no shape yet, and takes that of its weights; the layer after it then tells if it does not fit.
    shapes = [
        f"{name} {tuple(given[name].shape)} and not {tuple(has[name].shape)}"
        for name in has
        if name in given and not is_lazy(has[name]) and _shape(given[name]) != _shape(has[name])
    ]
    kinds = {
        "missing": [name for name in has if name not in given],
        "unexpected": [name for name in given if name not in has],
        "of another shape": shapes,
    }
    wrong = [f"{kind}: {_few(names)}" for kind, names in kinds.items() if names]
    if wrong:
        raise MLScaleError(
            "the weights to start from do not fit the model",
            where=f"init_from: {initial.checkpoint}",
            why="\n         ".join(wrong),
            fix=f"the model that they are of: like={initial.run}"
            if initial.run
            else "the model that they are of: model=…",
        )


def _shape(value: Any) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def _few(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
