"""The forms that predictions and labels have in events, of every task type."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from mlscale.task_types.event_forms import AnswerNames, TargetColumn
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.segmentation_type import encode_mask
from mlscale.task_types.task_type import TaskType
from mlscale.task_types.tensor_type import TensorType

NAMES = AnswerNames(("cat", "dog", "owl"))
TARGETS = AnswerNames((), (TargetColumn("mass", "kg"), TargetColumn("length")))


def encode(mask: list[list[int]]) -> str:
    return base64.b64encode(encode_mask(np.array(mask, np.uint8))).decode()


def predict(kind: str, outputs: dict[str, Any], names: AnswerNames = NAMES) -> tuple[dict[str, Any], list[Any]]:
    """The watched columns as lists, and the JSON of each prediction."""
    task_type = get_task_type(kind)
    predictions = task_type.build_predictions({name: np.array(value) for name, value in outputs.items()}, names.labels)
    columns = task_type.summarize_outputs(predictions, names)
    shown = {name: values if isinstance(values, list) else values.round(3).tolist() for name, values in columns.items()}
    return shown, json.loads(json.dumps(task_type.express_as_labels(predictions, names)))


def test_of_classes() -> None:
    columns, (prediction, _) = predict("classification", {"logits": [[0.0, 9, 0], [0, 0, 0]]})
    assert columns == {"label": ["dog", "cat"], "confidence": [1.0, 0.333]}
    task_type = get_task_type("classification")
    assert [task_type.parse_label(value, NAMES) for value in ("dog", 1)] == ["dog", "dog"]
    assert [task_type.score_prediction(prediction, label, NAMES) for label in ("dog", "owl")] == [1, 0]
    for value, why in (("dgo", "is dog meant"), (3, "from 0 to 2"), (True, "not a class"), (None, "not a class")):
        with pytest.raises(ValueError, match=why):
            task_type.parse_label(value, NAMES)


def test_of_several_labels() -> None:
    columns, predictions = predict("multilabel", {"logits": [[-9.0, 9, 9], [-9, -9, -9]]})
    assert columns == {"label_count": [2, 0], "confidence": [1.0, 1.0]}
    assert predictions == [["dog", "owl"], []]
    task_type = get_task_type("multilabel")
    label = task_type.parse_label('["owl", 0, "owl"]', NAMES)
    assert label == ["cat", "owl"]
    assert task_type.score_prediction(["dog", "owl"], label, NAMES) == pytest.approx(1 / 3)
    for value in ("owl", {"owl": 1}, ["hen"]):
        with pytest.raises(ValueError, match=r"list of names|not a class"):
            task_type.parse_label(value, NAMES)


def test_of_numbers() -> None:
    columns, predictions = predict("regression", {"value": [[1.5], [2.0]]}, AnswerNames((), (TargetColumn("mass"),)))
    assert (columns, predictions) == ({"value": [1.5, 2.0]}, [1.5, 2.0])
    columns, predictions = predict("regression", {"value": [[1.5, 8]]}, TARGETS)
    assert (columns, predictions) == ({"mass": [1.5], "length": [8]}, [{"mass": 1.5, "length": 8}])
    task_type = get_task_type("regression")
    assert task_type.parse_label("2.5", AnswerNames()) == 2.5
    label = task_type.parse_label({"length": 7, "mass": "1"}, TARGETS)
    assert task_type.score_prediction(predictions[0], label, TARGETS) == 0.75
    assert task_type.score_prediction(3.0, 1.0, NAMES) == 2
    for value in ("x", True, math.nan, None, 10**400, {"mass": 1}):
        with pytest.raises(ValueError, match="a label"):
            task_type.parse_label(value, TARGETS)


def test_of_masks() -> None:
    logits = np.zeros((1, 3, 2, 2))
    logits[0, 2, 0], logits[0, 1, 1] = 5, 5
    columns, predictions = predict("segmentation", {"logits": logits})
    assert columns == {"share_cat": [0], "share_dog": [0.5], "share_owl": [0.5]}
    task_type = get_task_type("segmentation")
    label = task_type.parse_label(encode([[2, 2], [255, 2]]), NAMES)
    assert task_type.score_prediction(predictions[0], label, NAMES) == pytest.approx((2 / 3 + 0) / 2)
    assert math.isnan(task_type.score_prediction(predictions[0], encode([[1]]), NAMES))
    for value, why in ((encode([[3]]), "class 3"), ("!", "a PNG"), (7, "a PNG"), ("AAAA", "a PNG")):
        with pytest.raises(ValueError, match=why):
            task_type.parse_label(value, NAMES)


def test_of_texts_without_labels() -> None:
    columns, predictions = predict("language", {"nats": [6.0], "tokens": [4]})
    assert (columns, predictions) == ({"loss": [1.5]}, [{"nats": 6.0, "tokens": 4}])
    task_type = get_task_type("language")
    assert not task_type.needs_label
    assert task_type.score_prediction(predictions[0], None, NAMES) == 1.5
    with pytest.raises(ValueError, match="no labels"):
        task_type.parse_label("cat", NAMES)


def test_a_type_of_another_package_works_by_the_defaults() -> None:
    task_type = TaskType()
    columns = task_type.summarize_outputs(
        {"angle": np.array([0.5, 1]), "who": ["a", None], "tags": [["x"], []], "wide": np.zeros((2, 30))}, NAMES
    )
    assert list(columns) == ["angle", "who", "tags_count", "wide_mean", "wide_std"]
    assert task_type.express_as_labels({"angle": np.array([0.5])}, NAMES) == [{"angle": 0.5}]
    assert task_type.express_as_labels({"wide": np.zeros((1, 3000))}, NAMES) == [None]
    assert task_type.parse_label({"angle": 1}, NAMES) == {"angle": 1}
    assert math.isnan(task_type.score_prediction({"angle": 1}, {"angle": 1}, NAMES))


def test_plain_tensors() -> None:
    columns = TensorType().summarize_outputs({"output": [np.array([1.0, 2]), np.array([3, 4.0])]}, NAMES)
    assert list(columns) == ["output_0", "output_1"]


@pytest.mark.parametrize(
    ("kind", "truth", "names", "labels"),
    [
        ("classification", [2, 0], NAMES, ["owl", "cat"]),
        ("multilabel", [[0, 1, 1], [0, 0, 0]], NAMES, [["dog", "owl"], []]),
        ("regression", [1.5, 2], AnswerNames((), (TargetColumn("mass"),)), [1.5, 2.0]),
        ("regression", [[1.5, 8]], TARGETS, [{"mass": 1.5, "length": 8.0}]),
        ("segmentation", [[[2, 255]]], NAMES, [encode([[2, 255]])]),
    ],
)
def test_the_truth_is_written_as_the_labels_that_are_parsed(
    kind: str, truth: list[Any], names: AnswerNames, labels: list[Any]
) -> None:
    task_type = get_task_type(kind)
    assert task_type.format_labels(np.array(truth), names) == labels
    assert [task_type.parse_label(label, names) for label in labels] == labels


def test_the_truth_of_other_types() -> None:
    assert get_task_type("language").format_labels(np.zeros(2), NAMES) == [None, None]
    assert TaskType().format_labels(np.array([0.5, 1]), NAMES) == [0.5, 1.0]
