"""Read and store the requests of `warmup/`: a document, and files for samples that JSON can't hold."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.array_files import load_arrays
from mlscale.atomic_files import convert_to_json, read_json
from mlscale.contracts import expect_format
from mlscale.data.decoding.image_files import find_image_suffix
from mlscale.errors import MLScaleError, describe_wrong_content

WARMUP, REQUESTS = "warmup", "warmup.json"


@dataclass(frozen=True)
class WarmupRequest:
    """A raw sample and what the servable answered when it was exported.

    Attributes:
        key: the sample's name.
        sample: as `Servable.predict_samples` takes it: a row by column, a text, the bytes of a file, an array.
        answer: its JSON form, as `TaskType.build_answers` gives it; None where the sample was refused.
        error: the reason that it was refused; None where it was answered.
        file: where the sample is stored; None where it is in the document.
    """

    key: str
    sample: Any
    answer: Mapping[str, Any] | None
    error: str | None = None
    file: Path | None = None


@dataclass(frozen=True)
class WarmupRequests:
    """The warm-up requests of a servable.

    Attributes:
        requests: at least one.
        tolerance: largest difference of a number, as a share of the largest one at its place in all answers.
    """

    requests: tuple[WarmupRequest, ...]
    tolerance: float


def read_warmup(folder: Path) -> WarmupRequests | None:
    """Return the requests of a folder that `write_warmup` has written; None where it is absent: a servable of format 1
    has none, nor one that was exported with warmup=false.

    Raises:
        MLScaleError: it is corrupt, or of a later format.
    """
    path = folder / REQUESTS
    # Whether it had to be there is known by the digests of servable.yaml, which have been verified.
    if not path.exists():
        return None
    document = read_json(path)
    expect_format("warmup", document, str(path))
    try:
        requests = tuple(_parse_request(folder, entry) for entry in document["requests"])
        return WarmupRequests(requests, float(document["tolerance"]))
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise MLScaleError(
            f"{REQUESTS} is corrupt",
            where=str(path),
            why=describe_wrong_content(error),
            fix="mlscale export <its run>, which makes the servable again",
        ) from error


def store_sample(
    sample: str | bytes | NDArray[Any] | Mapping[str, Any], number: int, *, is_text: bool
) -> tuple[dict[str, Any], bytes | None]:
    """Return the entry of a sample in the document, and the content of its file where it has one.

    Args:
        sample: see `WarmupRequest`.
        number: of the request, by which its file is named.
        is_text: the bytes are those of a text, and not of an image.
    """
    if isinstance(sample, str):
        # Half of a surrogate pair stands for a byte that is not UTF-8, and JSON is.
        sample = sample.encode("utf-8", "surrogateescape")
    if isinstance(sample, bytes):
        if is_text and (text := _decode_text(sample)) is not None:
            return {"form": "text", "sample": text}, None
        return {"form": "file", "file": f"{number}{'.txt' if is_text else find_image_suffix(sample)}"}, sample
    if isinstance(sample, np.ndarray | np.generic):
        return {"form": "array", "file": f"{number}.npy"}, _save_arrays(np.asarray(sample))
    # A row of a table has no arrays; a sample of several tensors has nothing else.
    if any(isinstance(value, np.ndarray) for value in sample.values()):
        return {"form": "arrays", "file": f"{number}.npz"}, _save_arrays(sample)
    return {"form": "row", "sample": convert_to_json(sample)}, None


def _decode_text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _save_arrays(arrays: NDArray[Any] | Mapping[str, NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    if isinstance(arrays, np.ndarray):
        # Pickles run code when they are read: none may get into a servable.
        np.save(file, arrays, allow_pickle=False)
    else:
        named: dict[str, Any] = dict(arrays)
        np.savez(file, **named)
    return file.getvalue()


def _parse_request(folder: Path, entry: Mapping[str, Any]) -> WarmupRequest:
    answer, error = entry.get("answer"), entry.get("error")
    if (answer is None) == (error is None):
        raise ValueError(f"{entry['key']} has no answer, or two")
    file, form = None, entry["form"]
    if form in ("row", "text"):
        sample = entry["sample"]
    else:
        file = folder / str(entry["file"])
        # A servable may come from elsewhere: a path out of its folder would read files of this machine.
        if Path(str(entry["file"])).name != str(entry["file"]):
            raise ValueError(f"{entry['file']} is not a file of this folder")
        sample = _read_file(file, form)
    return WarmupRequest(str(entry["key"]), sample, answer, error, file)


def _read_file(file: Path, form: str) -> Any:  # bytes, an array, or arrays by name
    content = file.read_bytes()
    if form == "file":
        return content
    if form not in ("array", "arrays"):
        raise ValueError(f"a sample of the form {form!r}")
    return load_arrays(content)
