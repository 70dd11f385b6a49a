"""Try a servable before it serves: it computes, and its outputs are finite and as its document states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.servable import DOCUMENT, Port, Servable, load

_ROWS = (1, 3)  # two sizes: a graph that was exported for one batch size fails for others


def load_and_try(folder: str | Path) -> Servable:
    """Read a servable and compute test batches with it.

    Raises:
        MLScaleError: it can't be loaded, or can't serve; onnxruntime is not installed (exit code 5).
    """
    servable = load(folder)
    raise_unless_it_computes(servable)
    return servable


def raise_unless_it_computes(servable: Servable) -> None:
    """Raise an error unless the servable computes batches of noise and of zeros.

    Only for noise must the outputs be finite: a model that divides by an image's own deviation gives NaN for a blank.

    Raises:
        MLScaleError: the graph fails, gives other shapes than servable.yaml states, or numbers that are not finite.
    """
    for rows in _ROWS:
        for raw, typical in ((_generate_noise(servable.input, rows), True), (_make_zeros(servable.input, rows), False)):
            outputs = servable.engine.run(raw)
            wanted = (rows, *servable.output.shape[1:])
            if outputs.shape != wanted or outputs.dtype != np.dtype(servable.output.dtype):
                raise _build_unfit_error(
                    servable,
                    f"it gives {outputs.dtype} {outputs.shape} for {rows} samples",
                    f"{DOCUMENT} states {servable.output.dtype} {wanted}",
                )
            if typical and not np.isfinite(outputs).all():
                count = int((~np.isfinite(outputs)).any(axis=tuple(range(1, outputs.ndim))).sum())
                raise _build_unfit_error(
                    servable, "its answers are not finite", f"{count} of {rows} samples of noise gave NaN or inf"
                )


def describe_schema_change(served: Servable, new: Servable) -> str:
    """Return in words what clients of `served` would have to change for `new`; '' where nothing."""
    changes = []
    for what, before, after in (("input", served.input, new.input), ("output", served.output, new.output)):
        if before != after:
            changes.append(f"{what} {_format_port(before)} becomes {_format_port(after)}")
    if served.labels != new.labels:
        gone, added = _list_missing(served.labels, new.labels), _list_missing(new.labels, served.labels)
        # Another order alone is a change, too: clients that use class numbers would read other classes.
        class_changes = [f"without {_format_some_names(gone)}"] * bool(gone) + [
            f"with {_format_some_names(added)}"
        ] * bool(added)
        changes.append(f"classes {' and '.join(class_changes)}" if class_changes else "classes in another order")
    return ", ".join(changes)


def _list_missing(names: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _format_some_names(names: list[str], most: int = 3) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _format_port(port: Port) -> str:
    return f"{port.name} {port.dtype} ({', '.join(map(str, port.shape))})"


def _generate_noise(port: Port, rows: int) -> NDArray[np.generic]:
    """Return random samples of valid values; token numbers are all 1, which every vocabulary has."""
    random = np.random.default_rng(0)  # seeded: a servable passes or fails always
    shape = (rows, *port.shape[1:])
    if port.dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    if port.dtype == "int64":
        return np.ones(shape, np.int64)
    return random.standard_normal(shape).astype(np.float32)


def _make_zeros(port: Port, rows: int) -> NDArray[np.generic]:
    return np.zeros((rows, *port.shape[1:]), port.dtype)


def _build_unfit_error(servable: Servable, what: str, why: str) -> MLScaleError:
    return MLScaleError(
        f"the servable can't serve: {what}",
        where=str(servable.folder),
        why=why,
        fix="export it again: mlscale export <run>",
    )
