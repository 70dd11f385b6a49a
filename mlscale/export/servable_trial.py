"""Try a servable before it serves: it computes, and its outputs are finite and as its document states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.engines.execution_provider import CPU
from mlscale.export.engines.runtime import Runtime
from mlscale.export.servable import DOCUMENT, Servable, load
from mlscale.export.warmup import WARMUP, check_warmup

_TOLERANCE, _ROUNDED_TOLERANCE = 1e-2, 1e-1
"""Largest difference of an output as a share of the largest: GPUs have 10 bits of a product, int8 fewer."""
_ROWS = (1, 3)  # two sizes: a graph that was exported for one batch size fails for others


def load_and_try(folder: str | Path, *, runtime: Runtime | None = None) -> Servable:
    """Read a servable, compute test batches with it, and send it its recorded requests.

    Raises:
        MLScaleError: it can't be loaded, can't serve, computes something else than ONNX Runtime does on the CPU, or
            answers its warm-up requests in another way than when it was exported; its runtime is not installed, or
            would compute elsewhere (exit code 5).
    """
    servable = load(folder, runtime=runtime)
    raise_unless_it_computes(servable)
    tolerance = 0.0  # none but that of the requests
    if runtime is not None and runtime.provider != CPU:
        is_rounded = servable.document.get("compression") is not None
        tolerance = _ROUNDED_TOLERANCE if is_rounded else _TOLERANCE
        _raise_unless_like_cpu(servable, runtime, tolerance)
    _raise_unless_it_repeats(servable, tolerance)
    return servable


def load_with_runtime(folder: Path, runtime: Runtime) -> Servable:
    """Read a servable for predictions: as it is on the CPU, and tried out by any other runtime.

    Raises:
        MLScaleError: as of `load`, and of `load_and_try` for another runtime.
    """
    return load(folder, runtime=runtime) if runtime.provider == CPU else load_and_try(folder, runtime=runtime)


def raise_unless_it_computes(servable: Servable) -> None:
    """Raise an error unless the servable computes batches of noise and of zeros.

    Only for noise must the outputs be finite: a model that divides by an image's own deviation gives NaN for a blank.

    Raises:
        MLScaleError: the graph fails, gives other shapes than servable.yaml states, or numbers that are not finite.
    """
    for rows in _ROWS:
        for is_typical in (True, False):
            outputs = servable.compute(build_trial_batch(servable, rows, is_typical=is_typical))
            for port in servable.outputs:
                _check_output(servable, port, outputs[port.name], rows, is_typical=is_typical)


def _raise_unless_like_cpu(servable: Servable, runtime: Runtime, tolerance: float) -> None:
    """Raise an error if another runtime than ONNX Runtime on the CPU gives other outputs for noise."""
    reference = load(servable.folder, threads=runtime.threads)
    # Recorded requests would show it, too, but a servable need not have any.
    batch = build_trial_batch(servable, max(_ROWS), is_typical=True)
    expected, computed = reference.compute(batch), servable.compute(batch)
    for name, values in expected.items():
        # Equal infinities, of classes that are excluded, differ by nothing.
        finite = np.isfinite(values)
        largest = max(1.0, float(np.abs(values[finite]).max(initial=0)))
        error = float(np.abs(computed[name][finite] - values[finite]).max(initial=0)) / largest
        if not error <= tolerance:
            raise MLScaleError(
                f"the runtime computes something else than ONNX Runtime on the CPU: {servable.engine.description}",
                where=f"provider={runtime.provider}",
                why=f"{name} differs by {error:.1e} of the largest, more than {tolerance:g}",
                fix="provider=cpu",
                exit=Exit.GATE,
            )


def _raise_unless_it_repeats(servable: Servable, tolerance: float) -> None:
    """Raise an error unless a servable answers its recorded raw requests as it did when it was exported."""
    problems = check_warmup(servable, servable.folder / WARMUP, least_tolerance=tolerance)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise MLScaleError(
            "the servable does not answer its warm-up requests as when it was exported",
            where=str(servable.folder / WARMUP),
            why=f"{problems[0]}{more}",
            fix="export it again with the packages of this machine: mlscale export <run>",
        )


def build_trial_batch(servable: Servable, rows: int, *, is_typical: bool) -> dict[str, NDArray[Any]]:
    """Return random samples of valid values; or zeros, empty texts and missing numbers."""
    if isinstance(servable.encoder, DocumentEncoder) and servable.format > 1:
        return dict(servable.pack_samples([b"a" * (is_typical * 2 + 1)] * rows).tensors)
    random = np.random.default_rng(0)  # seeded: a servable passes or fails always
    return {
        port.name: _generate_noise(port, rows, random) if is_typical else _make_zeros(port, rows)
        for port in servable.inputs
    }


def _check_output(servable: Servable, port: Port, output: NDArray[Any], rows: int, *, is_typical: bool) -> None:
    wanted = (rows, *port.shape[1:])
    fits = output.ndim == len(wanted) and all(
        size in (-1, given) for size, given in zip(wanted, output.shape, strict=True)
    )
    if not fits or output.dtype != np.dtype(port.dtype):
        raise _build_unfit_error(
            servable,
            f"it gives {output.dtype} {output.shape} for {rows} samples",
            f"{DOCUMENT} states {port.dtype} {wanted}",
        )
    if is_typical and output.dtype.kind == "f" and not np.isfinite(output).all():
        count = int((~np.isfinite(output)).any(axis=tuple(range(1, output.ndim))).sum())
        raise _build_unfit_error(
            servable, "its answers are not finite", f"{count} of {rows} samples of noise gave NaN or inf"
        )


def describe_schema_change(served: Servable, new: Servable) -> str:
    """Return in words what clients of `served` would have to change for `new`; '' where nothing."""
    changes = []
    for what, before, after in (("input", served.inputs, new.inputs), ("output", served.outputs, new.outputs)):
        if before != after:
            shown = (", ".join(map(_format_port, ports)) for ports in (before, after))
            changes.append(f"{what} {' becomes '.join(shown)}")
    if served.task_type.name != new.task_type.name:
        changes.append(f"task type {served.task_type.name} becomes {new.task_type.name}")
    changes += _describe_raw_changes(served.encoder.describe_raw_input(), new.encoder.describe_raw_input())
    if served.names.targets != new.names.targets:
        changes.append("what is predicted is named in another way")
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


def _describe_raw_changes(served: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return in words what changes in a raw sample: its kind, or the columns of a row."""
    if served["type"] != new["type"]:
        return [f"{served['type']} becomes {new['type']}"]
    if served["type"] != "table":
        return []
    before, after = ({column["name"]: column["type"] for column in schema["columns"]} for schema in (served, new))
    gone, added = _list_missing(tuple(before), tuple(after)), _list_missing(tuple(after), tuple(before))
    other = [name for name in before if name in after and before[name] != after[name]]
    return (
        [f"columns without {_format_some_names(gone)}"] * bool(gone)
        + [f"columns with {_format_some_names(added)}"] * bool(added)
        + [f"columns of another type: {_format_some_names(other)}"] * bool(other)
    )


def _generate_noise(port: Port, rows: int, random: np.random.Generator) -> NDArray[Any]:
    """Return random values; token numbers are all 1, which every vocabulary has."""
    shape = (rows, *(max(size, 1) for size in port.shape[1:]))
    if port.dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    if port.dtype == "string":
        return np.full(shape, "", object)
    if port.dtype in ("int32", "int64", "bool"):
        return np.ones(shape, port.dtype)
    return random.standard_normal(shape).astype(port.dtype)


def _make_zeros(port: Port, rows: int) -> NDArray[Any]:
    shape = (rows, *(max(size, 1) for size in port.shape[1:]))
    return np.full(shape, "", object) if port.dtype == "string" else np.zeros(shape, port.dtype)


def _build_unfit_error(servable: Servable, what: str, why: str) -> MLScaleError:
    return MLScaleError(
        f"the servable can't serve: {what}",
        where=str(servable.folder),
        why=why,
        fix="export it again: mlscale export <run>",
    )
