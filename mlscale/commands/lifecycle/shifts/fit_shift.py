"""Choose the change that makes a model measurably worse, on its training data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlscale.commands.lifecycle.production_samples import LabelledSamples
from mlscale.commands.lifecycle.shifts.known_shifts import AUTO, find_obstacle, list_candidates, list_shift_names
from mlscale.commands.lifecycle.shifts.shift import CONCEPT, Shift
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from mlscale.export.servable import Servable

_SAMPLES = 300
_CLEAR, _LEAST = (0.2, 0.5), (0.07, 0.2)
"""The loss of the score that is enough, and the least one that monitoring can find in 300 labels: of a share in points,
of a number relative to its mean."""


def fit_shift(name: str, servable: Servable, samples: LabelledSamples) -> Shift:
    """Return the mildest change of a name whose effect on the model's score is clear, else the one with the largest.

    Args:
        name: of the shift; `auto` for the first that is clear.
        servable: the model.
        samples: of its training data, labelled.

    Raises:
        MLScaleError: the model is not measurably worse after any of them.
    """
    encoder, task_type = servable.encoder, servable.task_type
    fitting = [key for key in list_shift_names(encoder.kind, task_type) if not find_obstacle(key, encoder)]
    # Only a person knows whether changed labels are right: they are never the default.
    tried = [key for key in fitting if key != CONCEPT] if name == AUTO else [name]
    few = samples.select_samples(np.arange(min(_SAMPLES, len(samples)), dtype=np.int64))
    before = compute_mean_score(servable, few)
    is_share = task_type.score.is_share
    # Over all groups: where none is clear, the largest effect counts, whatever its name.
    best: tuple[float, Shift | None] = (-math.inf, None)
    for group in (
        group for key in tried for group in list_candidates(key, encoder, task_type, samples.truth, servable.names)
    ):
        for shift in group:
            loss = _compute_loss(servable, before, compute_mean_score(servable, shift.apply_to(few)))
            best = max(best, (loss, shift), key=lambda entry: entry[0])
        if best[0] >= _CLEAR[not is_share]:
            break
    loss, chosen = best
    if chosen is None or not loss >= _LEAST[not is_share]:
        raise _build_no_effect_error(name, chosen, loss, [key for key in fitting if key not in tried])
    return chosen


def compute_mean_score(servable: Servable, samples: LabelledSamples) -> float:
    """Return the mean score of a model's predictions; NaN where it takes none of the samples."""
    from mlscale.retrain.gate.paired_columns import collect_paired_columns

    columns = collect_paired_columns(servable, servable, samples.iterate_batches())
    # Refused samples have no answer, and production is to be answered wrongly.
    if columns is None or len(columns) < len(samples):
        return math.nan
    return float(np.nanmean(servable.task_type.score_samples(columns.first)))


def _compute_loss(servable: Servable, before: float, after: float) -> float:
    """Return what the score loses; -inf where samples are refused."""
    score = servable.task_type.score
    lost = before - after if score.higher_is_better else after - before
    if math.isnan(lost):
        return -math.inf
    return lost if score.is_share else lost / max(abs(before), 1e-12)


def _build_no_effect_error(name: str, best: Shift | None, loss: float, others: list[str]) -> MLScaleError:
    return MLScaleError(
        f"the shift '{name}' does not make the model measurably worse",
        where="lifecycle.shift",
        why=f"its score loses {loss:.1%} where {best.description}" if best is not None else "its samples are refused",
        fix="\n".join(f"lifecycle.shift={name}" for name in others or ["concept"]),
        exit=Exit.GATE,
    )
