"""The reference profile of format 2 on disk: a sketch of each column, the score, and the words of texts.

Two files: `profile.npz` with the arrays, `profile.json` with the rest. No pickle. Format 1, of images and classes, is
read as format 2.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.array_files import load_arrays
from mlscale.atomic_files import read_json, write_bytes, write_json
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError, describe_wrong_content
from mlscale.reference.column_sketch import (
    CategorySketch,
    ColumnSketch,
    NumberSketch,
    ScoreReference,
    build_number_sketch,
)
from mlscale.reference.passage_rows import PassageRows

ARRAYS, ABOUT = "profile.npz", "profile.json"
# A profile may come from elsewhere: the number of its columns is checked before any is parsed.
_MAX_COLUMNS = 10_000


@dataclass(frozen=True, eq=False)
class StoredReference:
    """The validation samples that production is compared with.

    Attributes:
        about: metadata: samples, split, data version.
        columns: of samples (`input.<name>`) and of predictions (`output.<name>`).
        score: of the samples; None where the task type has none.
        words: the most frequent words of texts, lower case; empty for other inputs.
        passages: of documents, the values of each; None for other samples.
    """

    about: Mapping[str, Any]
    columns: tuple[ColumnSketch, ...] = field(repr=False)
    score: ScoreReference | None = None
    words: tuple[bytes, ...] = field(default=(), repr=False)
    passages: PassageRows | None = field(default=None, repr=False)

    def save_profile(self, folder: Path) -> None:
        """Write both files into `folder`, each completely or not at all; equal references give equal bytes."""
        arrays: dict[str, NDArray[Any]] = {
            f"values_{number}": column.values
            for number, column in enumerate(self.columns)
            if isinstance(column, NumberSketch)
        }
        if self.score is not None:
            arrays["scores"] = self.score.values
        if self.passages is not None:
            arrays |= self.passages.to_arrays([column.name for column in self.columns])
        # A word holds no space: they can be told apart in one array.
        arrays["words"] = np.frombuffer(b" ".join(self.words), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one
        document = {
            "format": get_format_tag("reference"),
            **self.about,
            "columns": [_describe_column(column) for column in self.columns],
            "score": None if self.score is None else self.score.to_document(),
        }
        # The JSON file comes last: if it exists, so do the arrays.
        write_bytes(folder / ARRAYS, buffer.getvalue())
        write_json(folder / ABOUT, document)

    @classmethod
    def load_profile(cls, folder: Path, labels: Sequence[str] = ()) -> StoredReference:
        """Return the reference of a folder, of any format.

        Args:
            folder: `reference/` of a servable.
            labels: names of the classes by number, which format 1 does not hold.

        Raises:
            MLScaleError: a file is absent or corrupt, or of a later format.
        """
        about = read_json(folder / ABOUT)
        expect_format("reference", about, str(folder / ABOUT))
        try:
            arrays = load_arrays(folder / ARRAYS)
            if str(about["format"]).endswith("/1"):
                rest = {name: value for name, value in about.items() if name not in ("format", "accuracy")}
                return cls(rest, convert_columns(arrays, labels), convert_score(about))
            return _parse_reference(about, arrays)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MLScaleError(
                "the reference profile can't be read",
                where=str(folder),
                why=describe_wrong_content(error),
                fix="mlscale export <its run>, which makes the servable again",
            ) from error


def _parse_reference(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> StoredReference:
    described = about["columns"]
    if len(described) > _MAX_COLUMNS:
        raise ValueError(f"it has {len(described):,} columns")
    columns = [_parse_column(document, arrays.get(f"values_{number}")) for number, document in enumerate(described)]
    score = None if about["score"] is None else ScoreReference.parse_document(about["score"], arrays["scores"])
    words = tuple(arrays["words"].tobytes().split())
    rest = {name: value for name, value in about.items() if name not in ("format", "columns", "score")}
    passages = PassageRows.parse_arrays(arrays, [column.name for column in columns])
    return StoredReference(rest, tuple(columns), score, words, passages)


def _describe_column(column: ColumnSketch) -> dict[str, Any]:
    shared = {"name": column.name, "group": column.group, "samples": column.samples, "missing": column.missing}
    if isinstance(column, NumberSketch):
        return {**shared, "kind": "number", "unit": column.unit, "effective": column.effective}
    counts = {"counts": dict(column.counts), "other": column.other}
    return {**shared, "kind": "category", "effective": column.effective, **counts}


def _parse_column(document: Mapping[str, Any], values: NDArray[Any] | None) -> ColumnSketch:
    name, group = str(document["name"]), document["group"]
    samples, missing, effective = int(document["samples"]), int(document["missing"]), float(document["effective"])
    if group not in ("inputs", "outputs") or not 0 <= missing <= samples:
        raise ValueError(f"the column {name!r} has {missing} of {samples} values missing, in {group!r}")
    if document["kind"] == "category":
        counts = {str(category): int(count) for category, count in document["counts"].items()}
        return CategorySketch(name, group, samples, missing, counts, int(document["other"]), effective)
    if values is None or values.ndim != 1 or values.dtype.kind != "f":
        raise ValueError(f"the column {name!r} has no values")
    # Tests expect order statistics: an edited file must not give a wrong answer.
    ordered = np.sort(values.astype(np.float64))
    return NumberSketch(name, group, str(document["unit"]), samples, missing, ordered, effective)


def convert_columns(arrays: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> tuple[ColumnSketch, ...]:
    """Return `input.mean_<channel>`, `input.std_<channel>`, `output.confidence` and `output.label`.

    Raises:
        KeyError, TypeError, ValueError: an array is absent, or has another shape or type.
    """
    means, stds, confidence = (
        _convert_to_floats(arrays[name]) for name in ("sample_mean", "sample_std", "sample_confidence")
    )
    if means.ndim != 2 or means.shape != stds.shape or confidence.shape != means.shape[:1] or not confidence.size:
        raise ValueError(f"{means.shape} means, {stds.shape} deviations, {confidence.shape} confidences")
    # Files are often in the order of their classes, which says nothing of time.
    columns: list[ColumnSketch] = [
        build_number_sketch(f"input.{name}_{channel}", "inputs", values[:, channel], is_ordered=False)
        for name, values in (("mean", means), ("std", stds))
        for channel in range(means.shape[1])
    ]
    columns.append(build_number_sketch("output.confidence", "outputs", confidence, is_ordered=False))
    stored = arrays["class_counts"]
    names = labels or [str(number) for number in range(len(stored))]
    if stored.shape != (len(names),) or stored.dtype.kind not in "iu" or stored.min() < 0 or not stored.sum():
        raise ValueError(f"{stored.dtype} {stored.shape} class counts of {len(names)} classes")
    # Classes that were never predicted are left out: the first event of one shows as a new category.
    counts = {name: int(count) for name, count in zip(names, stored, strict=True) if count > 0}
    total = sum(counts.values())
    columns.append(CategorySketch("output.label", "outputs", total, 0, counts, 0, float(total)))
    return tuple(columns)


def convert_score(about: Mapping[str, Any]) -> ScoreReference:
    """Return the accuracy of a profile of format 1."""
    return ScoreReference(
        name="accuracy",
        higher_is_better=True,
        unit="",
        is_share=True,
        is_binary=True,
        mean=float(about["accuracy"]),
        samples=int(about["samples"]),
        # Format 1 has stored the mean alone.
        values=np.zeros(0),
    )


def _convert_to_floats(array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise TypeError(f"an array of {array.dtype}, {array.ndim} axes")
    return np.asarray(array, np.float64)
