"""The answers that a server should give: computed by the servable itself, without HTTP and other requests' batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlscale.export.warmup.answer_comparison import AnswerComparison, convert_to_plain, iterate_numbers
from mlscale.export.warmup.warmup_requests import WarmupRequest, WarmupRequests

if TYPE_CHECKING:
    from mlscale.export.servable import Servable

TOLERANCE = 1e-3
"""The largest difference of a number, as a share of the largest one at its place; JSON and other batches round."""
_BATCH = 256


class ExpectedAnswers:
    """The answers of a servable to raw samples.

    Args:
        servable: computes them.
        raw: the samples, none of which it refuses.
    """

    def __init__(self, servable: Servable, raw: Sequence[Any]) -> None:
        self._answers = _compute_answers(servable, raw)
        requests = [WarmupRequest(str(row), raw[row], answer) for row, answer in enumerate(self._answers)]
        self._comparison = AnswerComparison(servable, WarmupRequests(tuple(requests), TOLERANCE))

    def find_problem(self, answer: Mapping[str, Any], row: int) -> str:
        """Return how an answer differs from that to the sample of this row; '' where it does not."""
        return self._comparison.find_difference(answer, self._answers[row])

    def measure_difference(self, answer: Mapping[str, Any], row: int) -> float:
        """Return the largest difference of a number, in its own units."""
        pairs = zip(iterate_numbers(answer), iterate_numbers(self._answers[row]), strict=False)
        return max((abs(given - wanted) for (_, given), (_, wanted) in pairs), default=0.0)


def _compute_answers(servable: Servable, raw: Sequence[Any]) -> list[dict[str, Any]]:
    # In parts: the outputs for masks take more memory than the samples.
    answers: list[dict[str, Any]] = []
    for start in range(0, len(raw), _BATCH):
        columns = servable.predict_samples(raw[start : start + _BATCH]).columns
        answers += servable.task_type.build_answers(columns, servable.names)
    return [convert_to_plain(answer) for answer in answers]
