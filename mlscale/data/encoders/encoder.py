"""The base of all encoders: the document that keeps one, its digest, and how samples are encoded.

A row that can't be used has an error of its own.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from abc import ABC, abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mlscale.contracts import get_format_tag

INPUT = "input"
"""The name of the tensor, where a model takes a single one."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that a model takes.

    Args:
        name: of the model's input.
        dtype: numpy's name of it.
        shape: of one sample.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def parse_document(cls, document: Mapping[str, Any]) -> TensorSpec:
        """Return the tensor that a document describes."""
        dtype = np.dtype(document["dtype"]).name
        return cls(str(document["name"]), dtype, tuple(int(size) for size in document["shape"]))

    def to_document(self) -> dict[str, Any]:
        """Return the tensor as JSON values."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


class EncodedSamples(NamedTuple):
    """Encoded samples.

    Args:
        tensors: by name, (n, …): a row for each sample, zeros for one that is bad.
        bad: the reason of each sample that could not be encoded, by its number.
        counts: the rows of each sample, int64 (n,), none for a bad one; None where each has one.
        facts: what the tensors do not show of the raw samples, such as the width of an image, float64 (n,) by name,
            NaN where it is not known; None where there are none.
    """

    tensors: Mapping[str, NDArray[Any]]
    bad: Mapping[int, str]
    counts: NDArray[np.int64] | None = None
    facts: Mapping[str, NDArray[np.float64]] | None = None

    @property
    def rows(self) -> int:
        """The rows of each tensor."""
        return len(next(iter(self.tensors.values()), ()))

    @property
    def size(self) -> int:
        """The number of samples."""
        return self.rows if self.counts is None else len(self.counts)


def select_samples(samples: EncodedSamples, is_selected: NDArray[np.bool_]) -> EncodedSamples:
    """Return the samples that are selected, bool (n,); none of them is bad."""
    if is_selected.all():
        return samples
    counts, facts = samples.counts, samples.facts
    # A document has a row for each of its windows, and none if it is bad.
    rows = is_selected if counts is None else np.repeat(is_selected, counts)
    tensors = {name: values[rows] for name, values in samples.tensors.items()}
    facts = facts and {name: values[is_selected] for name, values in facts.items()}
    return EncodedSamples(tensors, {}, None if counts is None else counts[is_selected], facts)


def join_samples(parts: Sequence[EncodedSamples]) -> EncodedSamples:
    """Return the samples of all parts, in their order; none of them is bad."""
    if len(parts) == 1:
        return parts[0]
    names = parts[0].tensors
    tensors = {name: np.concatenate([part.tensors[name] for part in parts]) for name in names}
    counts = None
    if any(part.counts is not None for part in parts):
        # A part without counts has a row for each of its samples.
        counts = np.concatenate(
            [np.ones(part.size, np.int64) if part.counts is None else part.counts for part in parts]
        )
    return EncodedSamples(tensors, {}, counts, _join_facts(parts))


def _join_facts(parts: Sequence[EncodedSamples]) -> dict[str, NDArray[np.float64]] | None:
    """Return the facts of all parts, NaN for those of parts that have none."""
    names = dict.fromkeys(name for part in parts for name in part.facts or ())
    if not names:
        return None
    return {
        name: np.concatenate([(part.facts or {}).get(name, np.full(part.size, np.nan)) for part in parts])
        for name in names
    }


class Encoder(ABC):
    """From raw samples to the tensors that a model takes.

    Attributes:
        kind: table, image, text or tensor.
        graph_start: what an exported graph takes: the packed 'rows' of a table, the 'pixels' of an image of the final
            size, the 'bytes' of a text, its 'tokens' where a tokenizer gives them, or 'tensors' as they are. What comes
            before is computed outside the graph.
        fact_names: the facts of raw samples (`EncodedSamples.facts`) that stored samples, which are packed, have lost.
    """

    kind: ClassVar[str]
    graph_start: ClassVar[str]
    fact_names: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `encode_samples` returns."""

    @property
    def graph_inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that an exported graph takes, which `pack_samples` returns."""
        return self.inputs

    @abstractmethod
    def describe_raw_input(self) -> dict[str, Any]:
        """Return the schema of the raw input as JSON values: `type`, and what belongs to it."""

    @abstractmethod
    def encode_sample(self, raw: Any) -> Mapping[str, NDArray[Any]]:
        """Return the tensors of one sample, by name.

        Raises:
            ValueError: it can't be encoded; the message has the reason.
        """

    @abstractmethod
    def describe_settings(self) -> dict[str, Any]:
        """Return all that defines the encoder, as JSON values."""

    @classmethod
    @abstractmethod
    def parse_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return the encoder of `describe_settings`."""

    def encode_samples(self, raw: Sequence[Any]) -> EncodedSamples:
        """Return the tensors of samples, and the reason of each bad one."""
        # A row also for a bad sample, so that rows and samples have the same numbers.
        tensors = {spec.name: np.zeros((len(raw), *spec.shape), spec.dtype) for spec in self.inputs}
        bad: dict[int, str] = {}
        for number, sample in enumerate(raw):
            try:
                encoded = self.encode_sample(sample)
            except ValueError as error:
                bad[number] = str(error)
                continue
            for name, values in encoded.items():
                tensors[name][number] = values
        return EncodedSamples(tensors, bad)

    def pack_samples(self, raw: Sequence[Any]) -> EncodedSamples:
        """Return the tensors of samples as an exported graph takes them, and the reason of each bad sample."""
        return self.encode_samples(raw)

    def unpack_samples(self, packed: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Return the tensors of `encode_samples` from those of `pack_samples`."""
        return packed

    def find_bad_rows(self, packed: Mapping[str, NDArray[Any]]) -> dict[int, str]:
        """Return the reason of each row that `pack_samples` gives for no sample, by its number: clients pack, too."""
        return {}

    @property
    def digest(self) -> str:
        """The digest of the definition: equal digests encode equally."""
        return compute_definition_digest(self.kind, self.describe_settings())

    def to_document(self) -> dict[str, Any]:
        """Return the encoder as a document of the contract `encoder`; `stored_encoder.parse_encoder` reads it."""
        return {
            "format": get_format_tag("encoder"),
            "kind": self.kind,
            "digest": self.digest,
            "settings": self.describe_settings(),
        }


def compute_definition_digest(kind: str, settings: Mapping[str, Any]) -> str:
    """Return the digest of a kind and its settings; JSON keeps every float64 exactly."""
    # Sorted and without spaces: the digest must not depend on the order in which a document was read.
    text = json.dumps({"kind": kind, "settings": settings}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe_infinite(is_finite: NDArray[np.bool_]) -> str:
    """Return the reason of a sample with values that are not finite."""
    return f"value {int(np.flatnonzero(~is_finite)[0]) + 1} is not a finite number"


def convert_values(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return numbers as the dtype of a tensor. Floats may be rounded, not to infinity; whole numbers stay as they are.

    Raises:
        ValueError: a value is no finite number, or the dtype does not have it.
    """
    if array.dtype == dtype and array.dtype.kind != "f":
        return array
    # numpy would parse texts as numbers, and cut off the imaginary part of complex ones.
    if array.dtype.kind not in "biuf":
        raise ValueError(f"its values are of the type {array.dtype}, no numbers")
    if array.dtype.kind == "f" and not (is_finite := np.isfinite(array)).all():
        raise ValueError(describe_infinite(is_finite))
    # What does not fit is found below, without a warning.
    with np.errstate(all="ignore"):
        converted: NDArray[Any] = array.astype(dtype, copy=False)
    is_held = np.isfinite(converted).all() if converted.dtype.kind == "f" else np.array_equal(converted, array)
    if not is_held:
        raise ValueError(f"it has values that {dtype} does not have")
    return converted


_MAX_COMPARED, _MAX_SHOWN = 200, 20
"""Keys of a row that are compared with the name of an absent column, since a comparison takes microseconds, and a
request may have thousands of keys; the most names in a message."""


class RowStep(NamedTuple):
    """What a column does to the features of a row.

    Args:
        column: for values that are not as usual.
        name: of the column.
        at: its first feature.
        mean, std: of numbers.
        low, high: the limits of numbers.
        fill: the features of a missing number.
        positions: the feature of each category; None for numbers.
    """

    column: Any
    name: str
    at: int
    mean: float
    std: float
    low: float
    high: float
    fill: array[float]
    positions: Mapping[str, int] | None


_JSON_KINDS = {
    "dict": "an object",
    "list": "a list",
    "tuple": "a list",
    "str": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "a truth value",
    "NoneType": "null",
}


def name_kind(value: object) -> str:
    """Return the kind of a value in the words of JSON, such as 'a list'."""
    name = type(value).__name__
    return _JSON_KINDS.get(name, f"of the type {name}")


def describe_kind(name: str, value: object, wanted: str) -> str:
    """Return the reason of a sample whose value is of another kind."""
    return f"{name} is {name_kind(value)}, not {wanted}"


def describe_no_number(name: str, value: str) -> str:
    """Return the reason of a sample whose text in a column of numbers is not one."""
    return f"{name} is {value!r}, no number"


def build_no_row_error(raw: object) -> ValueError:
    return ValueError(f"it is {name_kind(raw)}, and the model takes rows with named columns")


def is_utf8(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def describe_absent_columns(row: Mapping[str, object], columns: Sequence[str]) -> str:
    """Return the reason of a row that lacks some of its columns, in their order; with the key that may be the first."""
    absent = [name for name in columns if name not in row]
    shown = ", ".join(map(repr, absent[:_MAX_SHOWN])) + (", …" if len(absent) > _MAX_SHOWN else "")
    hint = suggest_name(absent[0], [str(key) for key in islice(row, _MAX_COMPARED)])
    return f"it lacks the column{'s' * (len(absent) > 1)} {shown} (null for a missing value){hint and f'; {hint}'}"


def suggest_name(name: str, keys: Sequence[str]) -> str:
    """Return which of some keys may be meant by a name that is not among them, as a part of a message; '' for none."""
    # They look the same, so that to print both would show nothing.
    form = unicodedata.normalize("NFC", name)
    if any(unicodedata.normalize("NFC", key) == form for key in keys):
        sent, trained = ("NFD", "NFC") if name == form else ("NFC", "NFD")
        return f"{name!r} is there in another form of Unicode: write its name in {trained}, not {sent}"
    near = get_close_matches(name, keys, 1)
    return f"is {near[0]!r} the same?" if near else ""
