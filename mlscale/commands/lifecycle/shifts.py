"""Changes of production: one of the inputs for each kind of sample, and one of what is right for the same inputs."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.commands.lifecycle.production import LabelledSamples
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_columns import NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.errors import Exit, MLScaleError
from mlscale.task_types.segmentation_type import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlscale.data.encoders.encoder import Encoder
    from mlscale.export.servable import Servable
    from mlscale.task_types.task_type import AnswerNames, TaskType

AUTO, CONCEPT = "auto", "concept"
INPUT_SHIFTS: Mapping[str, str] = {"image": "invert", "table": "unit", "text": "domain", "document": "domain"}
"""The change of inputs by the kind of encoder."""
_RELABELLED_TYPES = ("classification", "multilabel", "segmentation", "regression")
_SLOPES = (1.5, 2.0, -1.0)
_UNITS = (
    ("from °C to °F (× 1.8 + 32)", 1.8, 32.0),
    ("from kg to lb (× 2.2046)", 2.2046, 0.0),
    ("from cm to mm (× 10)", 10.0, 0.0),
    ("from m to mm (× 1,000)", 1000.0, 0.0),
)
_MOST_COLUMNS, _TRIED = 50, 300  # columns, and samples, whose effect is measured
_EVERYWHERE = 0.9  # the share of images from which a class is the background of most
_CLEAR, _LEAST = (0.2, 0.5), (0.07, 0.2)
"""The loss of the score that is enough, and the least one that monitoring can find in 300 labels: of a share in points,
of a number relative to its mean."""
_WORD = re.compile(rb"[A-Za-z]{3,}")  # shorter words are mostly those of grammar, which domains share
_LETTERS = bytes.maketrans(
    b"aeiouAEIOUbcdfghjklmnpqrstvwxyzBCDFGHJKLMNPQRSTVWXYZ", b"iouaeIOUAEnpqrstvwxyzbcdfghjklmNPQRSTVWXYZBCDFGHJKLM"
)


@dataclass(frozen=True)
class Shift:
    """A change of production.

    Attributes:
        name: as `lifecycle.shift` names it.
        description: the change in words.
        change_sample: from a raw sample to that after the change; None: inputs stay.
        change_truth: from the truth of n samples to that after the change; None: labels stay.
        relabelled: the classes whose meaning has changed; empty where no class stays what it was.
    """

    name: str
    description: str
    change_sample: Callable[[Any], Any] | None = None
    change_truth: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    relabelled: tuple[str, ...] = ()

    @property
    def is_concept(self) -> bool:
        """True if inputs stay, and what is right for them has changed."""
        return self.change_truth is not None

    def apply_to(self, samples: LabelledSamples) -> LabelledSamples:
        """Return the samples after the change."""
        raw, truth = samples
        if self.change_sample is not None:
            raw = [self.change_sample(sample) for sample in raw]
        return LabelledSamples(raw, truth if self.change_truth is None else self.change_truth(truth))


def list_fitting_shifts(encoder: Encoder, task_type: TaskType) -> list[str]:
    """Return the names of the shifts that a model's samples and labels can have; empty where there are none."""
    inputs = [INPUT_SHIFTS[encoder.kind]] if encoder.kind in INPUT_SHIFTS and list_input_shifts(encoder) else []
    return [*inputs, CONCEPT] if inputs and task_type.name in _RELABELLED_TYPES else inputs


def list_input_shifts(encoder: Encoder) -> list[Shift]:
    """Return the changes of a model's samples, the mildest first; empty where a table has no numbers."""
    if isinstance(encoder, ImageEncoder):
        return [Shift("invert", "pixels are inverted", partial(_invert_image, encoder=encoder))]
    if not isinstance(encoder, TableEncoder):
        return [Shift("domain", "all words are replaced by those of another domain", replace_words)]
    # First those whose values are all outside of what training had: where the two overlap no model can know the unit.
    shifts: tuple[list[Shift], list[Shift]] = [], []
    columns = [column for column in encoder.columns if isinstance(column, NumberColumn)][:_MOST_COLUMNS]
    for text, factor, offset in _UNITS:
        for column in columns:
            ends = (factor * column.minimum + offset, factor * column.maximum + offset)
            is_apart = min(ends) > column.maximum or max(ends) < column.minimum
            convert = partial(_convert_unit, name=column.name, factor=factor, offset=offset)
            shifts[not is_apart].append(Shift("unit", f"the unit of {column.name} has changed as {text}", convert))
    return shifts[0] + shifts[1]


def replace_words(text: bytes) -> bytes:
    """Return a text with made-up words that can be read, the same everywhere: vowels stay vowels."""
    return _WORD.sub(lambda word: word[0].translate(_LETTERS), text)


def list_concept_shifts(task_type: str, truth: NDArray[Any], names: AnswerNames) -> list[Shift]:
    """Return the changes of labels, the mildest first: another slope of numbers, or two classes that are swapped, those
    that most samples have apart.

    Args:
        task_type: its name.
        truth: of training samples, as the data gives it.
        names: of classes and targets.
    """
    if task_type == "regression":
        target = names.targets[0].name if len(names.targets) == 1 else "every target"
        texts = [(f"{target} is × {slope:g} for the same inputs", slope) for slope in _SLOPES]
        return [Shift(CONCEPT, text, change_truth=partial(_scale_targets, slope=slope)) for text, slope in texts]
    pair = _choose_swapped_pair(task_type, truth, len(names.labels))
    first, second = (names.labels[number] for number in pair)

    def swap(truth: NDArray[Any]) -> NDArray[Any]:
        changed = truth.copy()
        if task_type == "multilabel":
            changed[:, pair] = truth[:, pair[::-1]]
        else:
            changed[truth == pair[0]], changed[truth == pair[1]] = pair[::-1]
        return changed

    # With two classes none stays what it was.
    relabelled = (first, second) if len(names.labels) > 2 else ()
    return [Shift(CONCEPT, f"the labels {first} and {second} are swapped", None, swap, relabelled)]


def fit_shift(name: str, servable: Servable, samples: LabelledSamples) -> Shift:
    """Return the first change of a name whose effect on the model's score is clear, else the one with the largest.

    Args:
        name: of the shift; `auto` for that of the inputs: only a person knows whether changed labels are right.
        servable: the model.
        samples: of its training data, labelled.

    Raises:
        MLScaleError: the model is not measurably worse after any of them.
    """
    task_type, is_number = servable.task_type, not servable.task_type.score.is_share
    few = LabelledSamples(samples.raw[:_TRIED], samples.truth[:_TRIED])
    before, largest, best = _compute_mean_score(servable, few), -math.inf, None
    shifts = (
        list_concept_shifts(task_type.name, samples.truth, servable.names)
        if name == CONCEPT
        else list_input_shifts(servable.encoder)
    )
    for shift in shifts:
        lost = before - _compute_mean_score(servable, shift.apply_to(few))
        lost = lost / max(abs(before), 1e-12) if is_number else lost
        if lost > largest:
            largest, best = lost, shift
        if largest >= _CLEAR[is_number]:
            break
    if best is not None and largest >= _LEAST[is_number]:
        return best
    raise MLScaleError(
        f"the shift '{name}' does not make the model measurably worse",
        where="lifecycle.shift",
        why=f"its score loses {largest:.1%} where {best.description}" if best else "its samples are refused",
        fix="lifecycle.shift=concept" if name != CONCEPT else "lifecycle.shift=auto",
        exit=Exit.GATE,
    )


def _compute_mean_score(servable: Servable, samples: LabelledSamples) -> float:
    """Return the mean score of a model's predictions, higher being better; NaN where it refuses samples."""
    from mlscale.retrain.gate.paired_columns import collect_paired_columns

    columns = collect_paired_columns(servable, servable, samples.iterate_batches())
    # Refused samples have no answer, and production is to be answered wrongly.
    if columns is None or len(columns) < len(samples.raw):
        return math.nan
    score = servable.task_type.score
    return float(np.nanmean(servable.task_type.score_samples(columns.first))) * (1 if score.higher_is_better else -1)


def _invert_image(raw: bytes | NDArray[Any], encoder: ImageEncoder) -> bytes | NDArray[Any]:
    """Return the negative of an image: of a file as another file of its own size, of an array as an array."""
    if not isinstance(raw, bytes):
        # Other dtypes have no fixed range: the largest value counts as white.
        return np.asarray((255 if raw.dtype == np.uint8 else raw.max()) - raw, raw.dtype)
    from PIL import Image

    from mlscale.data.decoding.image_decoder import decode_image

    # At its own size, not the model's: size and sharpness must not show that the tour has resized it.
    pixels = 255 - decode_image(raw, None, encoder.shape[0], max_pixels=encoder.max_pixels)
    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def _convert_unit(row: Mapping[str, Any], name: str, factor: float, offset: float) -> Mapping[str, Any]:
    # A missing value is missing in any unit.
    return row if row[name] is None else {**row, name: factor * float(row[name]) + offset}


def _scale_targets(truth: NDArray[Any], slope: float) -> NDArray[Any]:
    return np.asarray(truth * slope, truth.dtype)


def _choose_swapped_pair(task_type: str, truth: NDArray[Any], classes: int) -> list[int]:
    """Return the numbers of the two classes of which most samples have exactly one."""
    if task_type == "multilabel":
        has = truth > 0.5
    elif task_type == "classification":
        has = np.eye(classes, dtype=bool)[truth]
    else:
        has = np.stack([np.bincount(mask[mask != IGNORED], minlength=classes) > 0 for mask in truth])
        # The background is on every image; to swap it with a class would leave nothing recognisable.
        is_background = has.mean(0) > _EVERYWHERE
        if (has.any(0) & ~is_background).sum() >= 2:
            has[:, is_background] = False
    counts = has.sum(0)
    apart = counts[:, None] + counts - 2 * (has.T.astype(np.int64) @ has)
    apart[counts == 0] = apart[:, counts == 0] = 0
    # Of pairs that are as often apart the first one, on every machine.
    return [int(number) for number in np.unravel_index(int(np.triu(apart, 1).argmax()), apart.shape)]
