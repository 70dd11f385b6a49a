"""The samples that a load test sends: tensors, or raw samples (rows, texts, image files)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlscale.data.table_parsing.table_form import suggest_conversion
from mlscale.errors import MLScaleError
from mlscale.loadtest.raw_files import describe_samples, read_raw_files
from mlscale.loadtest.server_model import ServerModel

MOST_BYTES = 64 << 20
"""The most bytes of samples in memory; of larger files the first samples are sent."""
_FORMS = {"row": "table", "text": "text", "image": "image"}
"""The type of raw input that each form of sample is for."""


@dataclass(frozen=True)
class RequestSamples:
    """The samples to send: either tensors or raw ones.

    Attributes:
        name: a description for reports.
        tensors: by name, (n, …) each; empty where the samples are raw.
        raw: rows by column, texts (bytes), or the contents of image files.
        form: of the raw ones; '' for tensors.
        labels: the names of their classes; None where they are not known.
    """

    name: str
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    raw: Sequence[Any] = ()
    form: Literal["", "row", "text", "image"] = ""
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values()))) if self.tensors else len(self.raw)


def read_request_samples(path: Path, model: ServerModel, member: str | None = None) -> RequestSamples:
    """Read samples of a file or a folder.

    An .npz file has the arrays `raw` and, if present, `labels` (names of classes), or an array for each input of the
    model. A .csv or .jsonl file has rows, of which a model of texts gets the column `member`, or the one that is found.
    A .txt file has a text in each line. A folder has images or texts, or is a servable, whose warm-up requests are
    sent.

    Raises:
        MLScaleError: it is absent or corrupt, or has samples that the model does not take.
    """
    try:
        # Pickled arrays would run code from the file.
        if path.suffix.lower() == ".npz":
            return _read_arrays(path, model)
        takes_texts = model.raw_type == "text"
        name, form, raw = read_raw_files(path, model.columns, MOST_BYTES, takes_texts=takes_texts, member=member)
    # numpy has no single exception for a corrupt file: it can raise each of these.
    except (OSError, EOFError, TypeError, ValueError, AttributeError, KeyError, zipfile.BadZipFile) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _build_samples_error(path, why, suggest_conversion(path, error)) from error
    # Of a model without raw form, such as one of a user's own data module.
    if form == "array":
        return _check_tensors(path, RequestSamples(name, _stack_arrays(path, raw, model)), model)
    if model.raw_type and model.raw_type != _FORMS[form]:
        raise _build_samples_error(path, f"they are of the form {form}, and {model.name} takes {model.raw_type}")
    # Servers of images take files also where they do not state it; of rows and texts nothing is known then.
    if not model.raw_type and form != "image":
        raise _build_samples_error(
            path, f"the server does not state that {model.name} takes samples of the form {form}"
        )
    return RequestSamples(name, raw=raw, form=form)


def _read_arrays(path: Path, model: ServerModel) -> RequestSamples:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        names = [tensor.name for tensor in model.inputs]
        if "raw" in stored.files and len(names) == 1:
            tensors = {names[0]: stored["raw"]}
        elif set(names) <= set(stored.files):
            tensors = {name: stored[name] for name in names}
        else:
            wanted = "no array 'raw'" if len(names) == 1 else f"not each of the arrays {', '.join(names)}"
            raise ValueError(f"it holds {wanted} but {', '.join(stored.files) or 'nothing'}")
        labels = stored["labels"] if "labels" in stored.files else None
    # numpy stores texts with a fixed width; BYTES tensors have elements of any.
    tensors = {name: values.astype(object) if values.dtype.kind in "SU" else values for name, values in tensors.items()}
    count = len(next(iter(tensors.values())))
    if labels is not None and labels.shape != (count,):
        raise ValueError(f"labels is {labels.shape} for {count} samples")
    whole = _check_tensors(path, RequestSamples("", tensors), model)
    most = max(1, MOST_BYTES // max(1, sum(values[:1].nbytes for values in tensors.values())))
    return RequestSamples(
        describe_samples(min(count, most), path, None if count <= most else MOST_BYTES),
        {name: np.ascontiguousarray(values[:most]) for name, values in whole.tensors.items()},
        labels=None if labels is None else tuple(map(str, labels[:most].tolist())),
    )


def _stack_arrays(path: Path, raw: Sequence[Any], model: ServerModel) -> dict[str, NDArray[Any]]:
    """Return the tensors of samples that are arrays, or arrays by name."""
    try:
        samples = [dict(item) if isinstance(item, Mapping) else {model.inputs[0].name: item} for item in raw]
        return {tensor.name: np.stack([sample[tensor.name] for sample in samples]) for tensor in model.inputs}
    except (KeyError, ValueError) as error:
        raise _build_samples_error(path, f"they are not what {model.name} takes: {error}") from error


def _check_tensors(path: Path, samples: RequestSamples, model: ServerModel) -> RequestSamples:
    sizes = {len(values) for values in samples.tensors.values() if values.ndim}
    if len(sizes) != 1 or not max(sizes):
        shapes = ", ".join(f"{name} is {values.shape}" for name, values in samples.tensors.items())
        raise _build_samples_error(path, f"they are not equally many of each: {shapes}")
    for tensor in model.inputs:
        if problem := tensor.find_problem(samples.tensors[tensor.name]):
            raise _build_samples_error(path, problem)
    return samples


def _build_samples_error(path: Path, why: str, fix: str | None = None) -> MLScaleError:
    return MLScaleError(
        "these samples can't be sent",
        where=f"samples={path}",
        why=" ".join(why.split()),
        fix=fix or "samples=<a .csv, .jsonl, .txt or .npz file, a folder of images, or a servable>\nsamples=null",
    )
