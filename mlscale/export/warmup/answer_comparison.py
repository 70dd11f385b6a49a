"""Compare a servable's answers with recorded ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.errors import MLScaleError
from mlscale.export.warmup.warmup_requests import WarmupRequest, WarmupRequests, read_warmup

if TYPE_CHECKING:
    from mlscale.export.servable import Servable

SAME_PIXELS = 0.99
"""The share of a mask's pixels that must be as recorded: at the edges of a region a rounding error decides."""


def check_warmup(servable: Servable, folder: Path, *, least_tolerance: float = 0.0) -> list[str]:
    """Send the requests of a folder to a servable; return what is wrong with its answers, in words.

    An answer must have the fields and the kinds of values of the recorded one, finite numbers within the tolerance of
    it, and the same names; a sample that was refused must be refused again.

    Args:
        servable: to be checked.
        folder: of the requests: usually `servable.folder / WARMUP`; without any there, nothing is checked.
        least_tolerance: for a runtime of fewer bits than that which has recorded the answers.

    Raises:
        MLScaleError: the requests can't be read.
    """
    warmup = read_warmup(folder)
    if warmup is None:
        return []
    tolerance = max(warmup.tolerance, least_tolerance)
    comparison = AnswerComparison(servable, WarmupRequests(warmup.requests, tolerance))
    return [problem for request in warmup.requests if (problem := comparison.find_problem(request))]


def answer_sample(servable: Servable, sample: object) -> dict[str, Any] | str:
    """Return the answer to one raw sample as JSON values (numbers that are not finite stay), or why it is refused."""
    packed = servable.pack_samples([sample])
    if packed.bad:
        return packed.bad[0]
    columns = servable.task_type.build_predictions(servable.compute_samples(packed), servable.labels)
    (answer,) = servable.task_type.build_answers(columns, servable.names)
    return {str(name): convert_to_plain(value) for name, value in answer.items()}


class AnswerComparison:
    """Compares answers with recorded ones.

    Args:
        servable: that answers.
        warmup: the recorded ones.
    """

    def __init__(self, servable: Servable, warmup: WarmupRequests) -> None:
        self._servable, self._tolerance = servable, warmup.tolerance
        schema = servable.task_type.describe_answer(servable.names).get("properties", {})
        # By the schema and not by the content: a text that looks like base64 is compared exactly.
        self._pictures = {name for name, entry in schema.items() if entry.get("contentMediaType") == "image/png"}
        self._largest: dict[str, float] = {}
        for request in warmup.requests:
            for path, number in iterate_numbers(request.answer or {}):
                self._largest[path] = max(self._largest.get(path, 0.0), abs(number))

    def find_problem(self, request: WarmupRequest) -> str:
        """Return the first problem of an answer, with the sample's name; '' where there is none."""
        try:
            answer = answer_sample(self._servable, request.sample)
        # One that fails does not keep the others from being checked: all problems are reported at once.
        except MLScaleError as error:
            return f"{request.key}: {error.what}"
        # Reasons are not compared: their words may change with the version of mlscale.
        if isinstance(answer, str):
            return "" if request.answer is None else f"{request.key} is refused: {answer}"
        if request.answer is None:
            return f"{request.key} is answered, and was refused: {request.error}"
        problem = self.find_difference(answer, request.answer)
        return f"{request.key}: {problem}" if problem else ""

    def find_difference(self, given: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
        """Return the first difference of an answer from a recorded one; '' where there is none."""
        return next(self._compare_values(given, recorded, "", ""), "")

    def _compare_values(self, given: object, recorded: object, path: str, kind: str) -> Iterator[str]:
        """Yield what differs.

        Args:
            given, recorded: JSON values.
            path: where they are in the answer.
            kind: as `path`, without positions in lists: numbers of one kind have a common scale.
        """
        name = path or "the answer"
        if isinstance(recorded, Mapping) and isinstance(given, Mapping):
            # In order, too: the fields come from the task type, so that another order means another build of it.
            if list(given) != list(recorded):
                yield f"{name} has the fields {', '.join(given)}, not {', '.join(recorded)}"
                return
            for key in recorded:
                below = f"{path}.{key}" if path else str(key)
                yield from self._compare_values(given[key], recorded[key], below, f"{kind}.{key}" if kind else key)
        elif isinstance(recorded, list) and isinstance(given, list):
            if len(given) != len(recorded):
                yield f"{name} has {len(given)} values, not {len(recorded)}"
                return
            for number, pair in enumerate(zip(given, recorded, strict=True)):
                yield from self._compare_values(*pair, f"{path}[{number}]", kind)
        elif isinstance(recorded, float) and isinstance(given, float):
            if not math.isfinite(given):
                yield f"{name} is {given}, which is not finite"
            # Not as `>`: a recorded NaN makes each comparison false, and must not pass.
            elif not abs(given - recorded) <= self._tolerance * self._largest[kind]:
                yield f"{name} is {given:.6g}, not {recorded:.6g} within {self._tolerance:g}"
        elif path in self._pictures and isinstance(given, str) and isinstance(recorded, str):
            share = _compare_pictures(given, recorded)
            if share < SAME_PIXELS:
                yield f"{share:.1%} of the pixels of {name} are as recorded, fewer than {SAME_PIXELS:.0%}"
        elif type(given) is not type(recorded) or given != recorded:
            yield f"{name} is {str(given)[:80]!r}, not {str(recorded)[:80]!r}"


def _compare_pictures(first: str, second: str) -> float:
    """Return the share of equal pixels of two PNGs in base64; 0 where their sizes differ, or one can't be read."""
    import base64

    # Here, since most servables give no masks, and are checked without Pillow.
    from mlscale.data.decoding.pil import open_image

    pixels = []
    for text in (first, second):
        # The recorded one is a servable's, which is not trusted: it may be no image, or one of billions of pixels.
        try:
            with open_image(base64.b64decode(text)) as image:
                pixels.append(np.asarray(image))
        except (ValueError, OSError):
            return 0.0
    return float((pixels[0] == pixels[1]).mean()) if pixels[0].shape == pixels[1].shape else 0.0


def iterate_numbers(value: object, kind: str = "") -> Iterator[tuple[str, float]]:
    """Yield each real number of JSON values with its path, positions in lists left out."""
    if isinstance(value, float):
        yield kind, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from iterate_numbers(item, f"{kind}.{name}" if kind else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from iterate_numbers(item, kind)


def convert_to_plain(value: object) -> Any:
    """Return a value with lists and numbers of Python in place of numpy's."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): convert_to_plain(item) for name, item in value.items()}
    return [convert_to_plain(item) for item in value] if isinstance(value, list | tuple) else value
