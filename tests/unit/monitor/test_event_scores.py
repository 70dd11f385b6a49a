"""Events are scored as validation samples were, by labels in the form of the task type."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlscale.events.event_table import Events
from mlscale.events.stream_schema import EVENT
from mlscale.monitor.event_columns import EventScorer
from mlscale.task_types.event_forms import AnswerNames, TargetColumn
from mlscale.task_types.registry import get_task_type

CLASSES = AnswerNames(("cat", "dog"))
TARGETS = AnswerNames(targets=(TargetColumn("mass", "g"),))


def answered(predictions: Sequence[Any]) -> Events:
    """Events e0, e1, … with these predictions."""
    rows = [
        {"id": f"e{number}", "outcome": "ok", "prediction": json.dumps(prediction)}
        for number, prediction in enumerate(predictions)
    ]
    return Events(pa.Table.from_pylist(rows, schema=EVENT))


@pytest.mark.parametrize(
    ("name", "names", "predictions", "labels", "scores"),
    [
        ("classification", CLASSES, ["cat", "dog", "cat"], {"e0": "cat", "e1": "cat"}, [1, 0]),
        ("classification", CLASSES, ["cat", "dog", "dog"], {"e2": 1, "e0": "gibbon", "e9": "cat"}, [0, 1]),
        ("classification", CLASSES, ["cat", "dog", "cat"], {"e0": "cat", "e1": "cat", "e2": "cat"}, [1, 0, 1]),
        ("multilabel", CLASSES, [["cat"], ["cat", "dog"]], {"e0": ["cat"], "e1": [0]}, [1, 0.5]),
        ("regression", TARGETS, [3.5, 7, 1], {"e0": 3, "e2": "2.5"}, [0.5, 1.5]),
        ("regression", TARGETS, [3.5, 7], {"e0": "heavy", "e1": None}, [np.nan, np.nan]),
        ("language", AnswerNames(), [{"nats": 6, "tokens": 3}, {"nats": 1, "tokens": 0}], {}, [2, 1]),
    ],
)
def test_the_score_of_each_type(
    name: str, names: AnswerNames, predictions: list[Any], labels: dict[str, Any], scores: list[float]
) -> None:
    scorer = EventScorer(get_task_type(name), names)
    found = scorer.score_events(scorer.select_events(answered(predictions), labels), labels)
    np.testing.assert_allclose(found, scores)


def test_without_labels_no_event_has_a_score() -> None:
    scorer = EventScorer(get_task_type("classification"), CLASSES)
    assert (
        len(scorer.select_events(answered(["cat"]), {})) == len(scorer.select_events(answered([]), {"e0": "cat"})) == 0
    )
