"""The samples that a load test sends: from a file, or random ones of the model's dtype and shape."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.loadtest.server_metadata import ServerModel

_RANDOM = 256
_MOST_BYTES = 64 << 20
"""The most bytes of samples in memory; of larger files the first samples are sent."""


@dataclass(frozen=True)
class RequestSamples:
    """The samples to send.

    Attributes:
        raw: decoded samples, (n, …).
        labels: the names of their classes; None where they are not known.
        name: a description for reports.
    """

    raw: NDArray[Any]
    labels: tuple[str, ...] | None
    name: str


def read_request_samples(path: Path, model: ServerModel) -> RequestSamples:
    """Read the arrays `raw` and, if present, `labels` (names of classes) of an .npz file, without pickle.

    Raises:
        MLScaleError: it is absent or corrupt, has no `raw`, or samples that the model does not take.
    """
    try:
        # Pickled arrays would run code from the file.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if "raw" not in stored.files:
                raise ValueError(f"it holds no array 'raw' but {', '.join(stored.files) or 'nothing'}")
            raw = stored["raw"]
            labels = stored["labels"] if "labels" in stored.files else None
    # numpy has no single exception for a corrupt file: it can raise each of these.
    except (OSError, EOFError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _build_samples_error(path, why) from error
    if raw.ndim != len(model.shape) + 1 or raw.shape[1:] != model.shape or not len(raw):
        raise _build_samples_error(
            path, f"raw is {raw.shape}, and {model.name} takes (n, {', '.join(map(str, model.shape))})"
        )
    if raw.dtype != model.dtype:
        raise _build_samples_error(path, f"raw is {raw.dtype}, and {model.name} takes {model.dtype}")
    if labels is not None and labels.shape != (len(raw),):
        raise _build_samples_error(path, f"labels is {labels.shape} for {len(raw)} samples")
    most = max(1, _MOST_BYTES // max(1, raw[0].nbytes))
    names = None if labels is None else tuple(map(str, labels[:most].tolist()))
    return RequestSamples(np.ascontiguousarray(raw[:most]), names, f"{len(raw[:most]):,} samples of {path.name}")


def generate_samples(model: ServerModel, seed: int = 0) -> RequestSamples:
    """Return 256 random samples (fewer if large): any value of uint8, 0 to 1 for floats, 0 to 99 for other integers."""
    generator = np.random.default_rng(seed)
    size = np.dtype(model.dtype).itemsize * int(np.prod(model.shape))
    shape = (max(1, min(_RANDOM, _MOST_BYTES // size)), *model.shape)
    kind = np.dtype(model.dtype)
    raw = generator.random(shape) if kind.kind == "f" else generator.integers(0, 256 if kind == "uint8" else 100, shape)
    return RequestSamples(raw.astype(kind), None, "random samples")


def _build_samples_error(path: Path, why: str) -> MLScaleError:
    return MLScaleError(
        "these samples can't be sent",
        where=f"samples={path}",
        why=" ".join(why.split()),
        fix="samples=<an .npz file with raw and, if known, labels>, or samples=null for random ones",
    )
