"""Parses and checks the answers of each protocol. Needs numpy only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.loadtest.build_requests import LoadRequest
from mlscale.serve.protocol.v2_codec import decode_response

_SUM = 1e-3
"""The largest difference between the sum of a sample's probabilities and 1; float32 in JSON keeps seven digits."""
_LONGEST_ERROR, _LONGEST_REASON = 16 << 10, 160
"""Bytes of an error that are read, and characters of its reason that are reported."""


class InvalidResponse(Exception):  # noqa: N818 - the answer is, not the program
    """An invalid answer; the message is the reason."""


@dataclass(frozen=True)
class ParsedResponse:
    """The parts of an answer that are used.

    Attributes:
        version: the version that computed it.
        labels: the predicted class of each sample; None where the answer has no class names.
    """

    version: str
    labels: tuple[str, ...] | None


def parse_response(
    protocol: str, request: LoadRequest, status: int, headers: Mapping[str, str], body: bytes, classes: int
) -> ParsedResponse:
    """Parse and check an answer.

    Args:
        status: the HTTP status; 0 without an answer.
        classes: the number of probabilities of a sample; 0 where it is not known.

    Raises:
        InvalidResponse: the status is not 200, the body is not a document of the protocol, the number of predictions or
            of probabilities is wrong, the probabilities of one class do not sum to 1, a number is not finite, or it
            names no version.
    """
    if status != 200:
        raise InvalidResponse(f"status {status}{_read_reason(body)}" if status else "no answer")
    try:
        answer = (_parse_v2_response if protocol == "v2" else _parse_predict_response)(
            headers, body, request.count, classes
        )
    # Whatever a server sends is data: each of these can be raised by a document of another form.
    except (AttributeError, IndexError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise InvalidResponse(f"the body is not a response: {type(error).__name__} {error}"[:200]) from error
    if not answer.version:
        raise InvalidResponse("the answer names no version")
    return answer


def _read_reason(body: bytes) -> str:
    """Return the reason in the body of an error, after a colon; '' where it has none."""
    try:
        reason = json.loads(body[:_LONGEST_ERROR])["error"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
    text = " ".join(str(reason).split())
    return f": {text[:_LONGEST_REASON]}" if text.isprintable() and text else ""


def _parse_predict_response(headers: Mapping[str, str], body: bytes, count: int, classes: int) -> ParsedResponse:
    """Parse an answer of POST /predict."""
    document = json.loads(body)
    predictions = document["predictions"]
    _check_count(len(predictions), count)
    # Several labels of a sample have probabilities that do not sum to 1, and other tasks have none.
    if not all("label" in entry for entry in predictions):
        if not all(set(entry) - {"id"} for entry in predictions):
            raise InvalidResponse("a prediction is empty")
        return ParsedResponse(str(document["model_version"]), None)
    _check_probabilities([entry["probabilities"] for entry in predictions], classes)
    return ParsedResponse(str(document["model_version"]), tuple(str(entry["label"]) for entry in predictions))


def _parse_v2_response(headers: Mapping[str, str], body: bytes, count: int, classes: int) -> ParsedResponse:
    """Parse an answer of the V2 protocol, JSON or binary."""
    document, outputs = decode_response(headers, body)
    for values in outputs.values():
        _check_count(len(values), count)
    numbers = {name: values for name, values in outputs.items() if values.dtype != np.object_}
    if not numbers:
        raise InvalidResponse("no output of numbers")
    _check_numbers(numbers, classes)
    labels = tuple(map(str, outputs["label"].ravel())) if "label" in outputs and "label" not in numbers else None
    return ParsedResponse(str(document["model_version"]), labels)


def _check_count(given: int, count: int) -> None:
    if given != count:
        raise InvalidResponse(f"{given} predictions for {count} samples")


def _check_numbers(outputs: Mapping[str, NDArray[Any]], classes: int) -> None:
    # Other outputs of numbers may be anything: values, logits of several labels, losses.
    if "probabilities" in outputs:
        _check_probabilities(outputs["probabilities"].tolist(), classes)
    elif (logits := outputs.get("logits")) is not None and logits.ndim == 2 and classes not in (0, logits.shape[1]):
        raise InvalidResponse(f"{logits.shape[1]} logits for {classes} classes")
    for name, values in outputs.items():
        # A logit of -inf excludes a class; NaN is never an answer.
        if np.isnan(values).any():
            raise InvalidResponse(f"{name} has numbers that are NaN")


def _check_probabilities(probabilities: Sequence[Sequence[float]], classes: int) -> None:
    for row in probabilities:
        if classes and len(row) != classes:
            raise InvalidResponse(f"{len(row)} probabilities for {classes} classes")
        if not math.isclose(math.fsum(row), 1, abs_tol=_SUM) or min(row) < 0:
            raise InvalidResponse(f"the probabilities of a sample sum to {math.fsum(row):.6g}")
