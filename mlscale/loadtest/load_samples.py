"""The samples that a load test sends: tensors, or raw samples (rows, texts, image files)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlscale.array_files import load_arrays
from mlscale.errors import MLScaleError
from mlscale.export.warmup import WARMUP, WarmupRequest, read_warmup
from mlscale.export.warmup.warmup_requests import REQUESTS
from mlscale.loadtest.server_model import ServerModel
from mlscale.predict.input_tables import TableInputs
from mlscale.predict.inputs import open_inputs
from mlscale.report.text import format_count

MOST_BYTES = 64 << 20
"""The most bytes of samples in memory; of larger files the first samples are sent."""
_LINES = (".txt", ".text", ".md")
_READ = 1000  # rows at once
Form = Literal["row", "text", "image", "array"]
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
        if path.suffix.lower() == ".npz":
            return _read_arrays(path, model)
        form, given = _read_raw_samples(path, model, member)
        raw, is_whole = _take_first(given)
    except (OSError, EOFError, TypeError, ValueError, AttributeError, KeyError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _build_samples_error(path, why) from error
    except MLScaleError as error:
        # Its fix may be one of `predict`, which has another key.
        why, fix = ": ".join(filter(None, (error.what, error.why))), str(error.fix)
        raise _build_samples_error(path, why, None if fix.startswith("input=") else fix) from error
    if not raw:
        raise _build_samples_error(path, "it holds no samples")
    name = describe_samples(len(raw), path, None if is_whole else MOST_BYTES)
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


def describe_samples(count: int, path: Path, most_bytes: int | None) -> str:
    """Return a description of samples; `most_bytes`: the limit, where they are the first ones of a larger file."""
    if most_bytes is None:
        return f"{format_count(count, 'sample')} of {path.name}"
    return f"the first {format_count(count, 'sample')} of {path.name}, which are {most_bytes / (1 << 20):g} MiB,"


def _read_raw_samples(path: Path, model: ServerModel, member: str | None) -> tuple[Form, Iterable[Any]]:
    """Return the form of the samples of a file or folder, and the samples.

    Raises:
        MLScaleError, OSError, ValueError: it can't be read, or the column of the texts is not clear.
    """
    warmup = next((folder for folder in (path / WARMUP, path) if (folder / REQUESTS).is_file()), None)
    if warmup is not None:
        return _read_warmup_samples(warmup)
    if path.suffix.lower() in _LINES:
        return "text", _read_lines(path)
    inputs = open_inputs(str(path), member=member, key=None, columns=(), kind=model.raw_type)
    form: Form = "text" if model.raw_type == "text" else "image"
    if isinstance(inputs, TableInputs) and form != "text":
        names = [str(column["name"]) for column in model.columns] or inputs.names
        parts = (inputs.read_rows(part, names)[1] for part in _split_rows(len(inputs)))
        return "row", (_convert_row(row, model.columns) for rows in parts for row in rows)
    contents = (item.content for part in _split_rows(len(inputs)) for item in inputs.read_items(part))
    return form, (_encode_content(content) for content in contents if len(content))


def _split_rows(count: int) -> Iterator[range]:
    return (range(start, min(start + _READ, count)) for start in range(0, count, _READ))


def _encode_content(content: object) -> bytes:
    if isinstance(content, np.ndarray):
        raise ValueError("it is not clear which column has the texts: type member=<column>")
    return content if isinstance(content, bytes) else str(content).encode()


def _read_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            # A file of another system, and of an old Macintosh.
            yield from (part for part in line.splitlines() if part.strip())


def _convert_row(row: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a row with numbers where the model has them; what is none stays a text, which the server names."""
    numbers = {column["name"] for column in columns if column["type"] == "number"}
    return {name: _parse_number(value) if name in numbers else value for name, value in row.items()}


def _parse_number(value: Any) -> Any:
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return None if isinstance(number, float) and math.isnan(number) else number


def _take_first(given: Iterable[Any]) -> tuple[list[Any], bool]:
    """Return the first samples of at most so many bytes, at least one, and whether these are all."""
    raw: list[Any] = []
    size = 0
    for sample in given:
        # Rows are as long as in a request.
        size += len(sample) if isinstance(sample, bytes) else 0 if _is_array(sample) else len(json.dumps(sample))
        if raw and size > MOST_BYTES:
            return raw, False
        raw.append(sample)
    return raw, True


def _is_array(sample: object) -> bool:
    values = sample.values() if isinstance(sample, Mapping) else [sample]
    return any(isinstance(value, np.ndarray) for value in values)


def _read_warmup_samples(folder: Path) -> tuple[Form, list[Any]]:
    """Return the samples of a servable's warm-up requests that were answered."""
    warmup = read_warmup(folder)
    answered = [request for request in (warmup.requests if warmup else ()) if request.answer is not None]
    forms = {_get_form(request) for request in answered}
    # A model takes one form of samples, so several are not the requests of one servable.
    if len(forms) != 1:
        raise ValueError("no warm-up request was answered" if not forms else f"several forms of samples: {forms}")
    samples = [request.sample for request in answered]
    return forms.pop(), [sample.encode() if isinstance(sample, str) else sample for sample in samples]


def _get_form(request: WarmupRequest) -> Form:
    if _is_array(request.sample):
        return "array"
    if isinstance(request.sample, Mapping):
        return "row"
    if request.file is not None and request.file.suffix != ".txt":
        return "image"
    return "text"


def _read_arrays(path: Path, model: ServerModel) -> RequestSamples:
    stored, names = load_arrays(path), [tensor.name for tensor in model.inputs]
    if "raw" in stored and len(names) == 1:
        tensors = {names[0]: stored["raw"]}
    elif set(names) <= set(stored):
        tensors = {name: stored[name] for name in names}
    else:
        wanted = "no array 'raw'" if len(names) == 1 else f"not each of the arrays {', '.join(names)}"
        raise ValueError(f"it holds {wanted} but {', '.join(stored) or 'nothing'}")
    labels = stored.get("labels")
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
