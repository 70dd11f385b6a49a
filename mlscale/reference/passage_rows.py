"""The values of single passages in a reference profile: of documents, those count that are as long as production's.

The share of spaces of a sentence scatters more than that of a page, and its first bytes are predicted from little: a
reference of blocks would call every short document drifted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.reference.column_sketch import NumberSketch, ScoreReference

Floats = NDArray[np.float64]
UNKNOWN_WORDS = "input.unknown_words"
_FEWEST, _ENOUGH, _SHARE = 4, 64, 8
"""The passages that a document is compared with: at least so many, more until the weights of all are worth so many
values, but no more than this part of all."""
_STANDARD_ERRORS = 2.0


@dataclass(frozen=True, eq=False)
class PassageRows:
    """m passages.

    Attributes:
        lengths: in bytes, float64 (m,).
        groups: numbers of documents, or parts of them: passages of one group are not independent; int64 (m,).
        gave_words: true where the words of a passage are among the known ones: its share of unknown ones shows
            nothing; (m,).
        columns: values by the name of the column, float64 (m,) each; NaN where missing.
        scores: of the passages, float64 (m,).
    """

    lengths: Floats = field(repr=False)
    groups: NDArray[np.int64] = field(repr=False)
    gave_words: NDArray[np.bool_] = field(repr=False)
    columns: Mapping[str, Floats] = field(repr=False)
    scores: Floats = field(repr=False)

    def to_arrays(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the arrays of a profile, columns in the order of `names`."""
        return {
            "passage_lengths": self.lengths,
            "passage_groups": self.groups,
            "passage_words": self.gave_words,
            "passage_scores": self.scores,
            "passage_columns": np.stack([self.columns[name] for name in names]),
        }

    @classmethod
    def parse_arrays(cls, arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> PassageRows | None:
        """Return the passages of a profile's arrays; None where it has none.

        Raises:
            ValueError: the arrays do not fit each other.
            KeyError: an array is absent.
        """
        if "passage_lengths" not in arrays:
            return None
        lengths, scores = (np.asarray(arrays[f"passage_{name}"], np.float64) for name in ("lengths", "scores"))
        groups, gave_words = np.asarray(arrays["passage_groups"], np.int64), np.asarray(arrays["passage_words"], bool)
        columns = np.asarray(arrays["passage_columns"], np.float64)
        shapes = {values.shape for values in (lengths, scores, groups, gave_words)}
        if shapes != {(len(lengths),)} or columns.shape != (len(names), len(lengths)):
            raise ValueError("the values of passages do not fit each other")
        return cls(lengths, groups, gave_words, dict(zip(names, columns, strict=True)), scores)

    def weigh_by_length(self, lengths: Floats) -> Floats:
        """Return the weight of each passage next to documents of these lengths: each document is compared with the
        passages that are nearest to it in length.

        Args:
            lengths: of the documents in bytes, (n,); those that are not known are left out, and all passages count
                alike where none is.
        """
        known, m = lengths[lengths > 0], len(self.lengths)
        if not len(known):
            return np.ones(m)
        order = np.argsort(self.lengths, kind="stable")
        at = np.searchsorted(self.lengths[order], known)
        # As few neighbours as make enough values: further ones are of other lengths, with other shares of full stops.
        nearest, most = _FEWEST, min(m, max(_ENOUGH // 2, m // _SHARE))
        while True:
            nearest = min(nearest, most)
            start = np.clip(at - nearest // 2, 0, m - nearest)
            # The neighbours of a document are a run of ranks: their ends are counted, and summed up once.
            changes = np.bincount(start, minlength=m + 1) - np.bincount(start + nearest, minlength=m + 1)
            weights = np.empty(m)
            weights[order] = np.cumsum(changes)[:m]
            if nearest == most or weights.sum() ** 2 >= _ENOUGH * (weights @ weights):
                return weights
            nearest *= 2

    def build_sketches(self, weights: Floats, names: Collection[str] | None = None) -> tuple[NumberSketch, ...]:
        """Return a sketch of each column, or of those of these names."""
        return tuple(
            self._build_sketch(name, values, weights * ~self.gave_words if name == UNKNOWN_WORDS else weights)
            for name, values in self.columns.items()
            if names is None or name in names
        )

    def build_score(self, score: ScoreReference, weights: Floats) -> ScoreReference:
        """Return the score of weighted passages."""
        is_counted = (weights > 0) & np.isfinite(self.scores)
        if not is_counted.any():
            return score
        values, weights = self.scores[is_counted], weights[is_counted]
        effective = compute_effective_size(values, weights, self.groups[is_counted])
        mean, drawn = float(np.average(values, weights=weights)), _draw_quantiles(values, weights)
        return replace(score, mean=mean, samples=len(drawn), values=drawn, correlation_time=len(drawn) / effective)

    def _build_sketch(self, name: str, values: Floats, weights: Floats) -> NumberSketch:
        is_known = (weights > 0) & ~np.isnan(values)
        known, weights_known = values[is_known], weights[is_known]
        share = float(weights_known.sum() / weights.sum()) if len(known) else 0.0
        missing = round(len(known) * (1 / share - 1)) if share else int((weights > 0).sum())
        effective = compute_effective_size(known, weights_known, self.groups[is_known])
        return NumberSketch(
            name,
            "inputs" if name.startswith("input.") else "outputs",
            "",
            len(known) + missing,
            missing,
            _draw_quantiles(known, weights_known),
            effective,
        )


def compute_effective_size(values: Floats, weights: Floats, groups: NDArray[np.int64]) -> float:
    """Return how many independent values the weighted mean is worth, at most as many as the weights are (Kish, Survey
    Sampling, 1965).

    From the variance of the mean between groups, as in cluster sampling: values of one document are alike, and passages
    overlap. Two standard errors of that variance are added, as it is of few groups.

    Args:
        values: (m,).
        weights: above 0, (m,).
        groups: (m,).
    """
    if not len(values):
        return 0.0
    shares = weights / weights.sum()
    deviations = values - shares @ values
    spread = float(shares @ deviations**2)
    _, numbers = np.unique(groups, return_inverse=True)
    sums, count = np.bincount(numbers, shares * deviations), int(numbers.max()) + 1
    most = 1 / float(shares @ shares)
    # Of equal or infinite values, or of one group, nothing shows how alike they are: a group is one value then.
    if count < 2 or (values == values[0]).all() or not math.isfinite(spread):
        per_group = np.bincount(numbers, shares)
        return min(most, 1 / float(per_group @ per_group))
    between = float(sums @ sums) * count / (count - 1)
    return max(1.0, min(most, spread / (between * (1 + _STANDARD_ERRORS * math.sqrt(2 / (count - 1))))))


def _draw_quantiles(values: Floats, weights: Floats) -> Floats:
    """Return as many sorted values as there are, whose distribution is the weighted one."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    wanted = (np.arange(len(values)) + 0.5) / max(1, len(values)) * (reached[-1] if len(reached) else 0.0)
    drawn: Floats = values[order][np.minimum(np.searchsorted(reached, wanted), len(values) - 1)]
    return drawn
