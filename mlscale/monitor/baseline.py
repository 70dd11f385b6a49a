"""The baseline that production is compared with: a servable's reference profile, a sketch of each column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import compute_sha256
from mlscale.errors import MLScaleError
from mlscale.export.servable import DOCUMENT, REFERENCE, parse_task_type, read_document
from mlscale.monitor.event_columns import EventScorer, name_columns, round_sketch
from mlscale.reference.column_sketch import ColumnSketch, ScoreReference
from mlscale.reference.passage_rows import PassageRows
from mlscale.reference.stored_reference import StoredReference
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.task_type import TaskType


@dataclass(frozen=True, eq=False)
class Baseline:
    """The normal inputs and predictions of a version of a model.

    Attributes:
        model: its name, under which its events are stored.
        version: of the events that are compared with it, such as `resnet:v7`.
        task_type: of its predictions.
        names: of classes and targets.
        sketches: of the columns of inputs and predictions.
        score: of the reference's samples; None where the task type has none.
        has_pixels: samples are pixels.
        passages: of the documents of the reference; None for other samples.
    """

    model: str
    version: str
    task_type: TaskType
    names: AnswerNames = field(repr=False)
    sketches: tuple[ColumnSketch, ...] = field(repr=False)
    score: ScoreReference | None
    has_pixels: bool = False
    passages: PassageRows | None = field(default=None, repr=False)

    @cached_property
    def column_names(self) -> Mapping[str, str]:
        """The names of the columns in sentences."""
        return name_columns(self.sketches, self.names, has_pixels=self.has_pixels)

    @property
    def scorer(self) -> EventScorer | None:
        """The scorer of events; None where there is no score to compare with."""
        return None if self.score is None else EventScorer(self.task_type, self.names)

    def match_lengths(self, lengths: NDArray[np.float64]) -> Baseline:
        """Return the baseline of documents of these lengths, in bytes (n,); that of other samples as it is."""
        if self.passages is None:
            return self
        weights, names = self.passages.weigh_by_length(lengths), {sketch.name for sketch in self.sketches}
        sketches = tuple(map(round_sketch, self.passages.build_sketches(weights, names)))
        score = None if self.score is None else self.passages.build_score(self.score, weights)
        return replace(self, sketches=sketches, score=score)


def read_baseline(folder: Path, *, model: str, version: str) -> Baseline:
    """Return the baseline of the servable in `folder`. Needs numpy only: the model itself is not loaded.

    Raises:
        MLScaleError: the folder is not a servable, its task type is not installed, or its profile is absent, corrupt,
            altered, or of another model.
    """
    document = read_document(folder)
    try:
        files = {str(name): str(entry["sha256"]) for name, entry in document["files"].items()}
        names, task_type = AnswerNames.parse_document(document), parse_task_type(document)
        shape, dtype = list(document["inputs"][0]["shape"]), document["inputs"][0]["dtype"]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise MLScaleError(
            f"{DOCUMENT} is corrupt",
            where=str(folder / DOCUMENT),
            why=repr(error),
            fix="mlscale export <its run>, which makes the servable again",
        ) from error
    # Before the arrays are read: an altered profile must not decide what counts as normal.
    _check_as_exported(folder, files)
    reference = StoredReference.load_profile(folder / REFERENCE, names.labels)
    sketches = tuple(map(round_sketch, reference.columns))
    # uint8 (n, c, h, w): only then do 'brightness' and 'contrast' describe a channel.
    has_pixels = dtype == "uint8" and len(shape) == 4
    return Baseline(model, version, task_type, names, sketches, reference.score, has_pixels, reference.passages)


def _check_as_exported(folder: Path, files: Mapping[str, str]) -> None:
    """Compare the profile's files with the digests in the servable's document.

    Raises:
        MLScaleError: they differ.
    """
    names = [name for name in files if name.startswith(f"{REFERENCE}/")]
    # Without any file of a profile the name of its folder fails the check below, with the same message.
    for name in names or [f"{REFERENCE}/"]:
        path = folder / name
        # A document from elsewhere could name files outside the folder.
        inside = path.resolve().is_relative_to(folder.resolve())
        if not (inside and path.is_file() and compute_sha256(path) == files.get(name)):
            raise MLScaleError(
                "the reference profile is corrupt or altered",
                where=str(path),
                why=f"it is not what {DOCUMENT} has the digest of",
                fix="export it again: mlscale export <run>",
            )
