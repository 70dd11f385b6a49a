"""A result: a sentence and a table for people, one document for programs."""

import io
import json
import math
from typing import Any

import numpy
import pytest

from mlscale.errors import MLScaleError
from mlscale.report import Result, print_result

RESULT = Result(
    "train",
    True,
    "resnet trained",
    {"val/accuracy": 0.99172, "time_s": 74.2, "loss": math.nan},
    {"run": "/r"},
    ["lr=0.1"],
)


def test_json_is_one_document() -> None:
    stream = io.StringIO()
    print_result(RESULT, "json", stream)
    document = json.loads(stream.getvalue(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert document["metrics"] == {"val/accuracy": 0.99172, "time_s": 74.2, "loss": None}
    assert "exit" not in document


def test_round_trip() -> None:
    back = Result.from_dict(RESULT.as_dict())
    assert math.isnan(back.metrics["loss"])
    assert back.as_dict() == RESULT.as_dict()
    with pytest.raises(MLScaleError):
        Result.from_dict({"format": "mlscale/run/1"})


def test_text() -> None:
    assert RESULT.format_text().splitlines()[0] == "resnet trained"
    assert "0.9917" in RESULT.format_text()
    assert "1 min 14 s" in RESULT.format_text()


def test_overrides_are_masked() -> None:
    assert Result("a", True, "", overrides=["x.api_key=abc"]).as_dict()["overrides"] == ["x.api_key=***"]


def test_numbers_of_numpy() -> None:
    scalars: dict[str, Any] = {"x": numpy.float32(0.5), "n": numpy.int64(2)}
    assert Result("a", True, "", scalars).as_dict()["metrics"] == {"x": 0.5, "n": 2}
