"""Each task type: the score of a sample and its mean, predictions as Parquet columns and as JSON, its defaults."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mlscale.commands.evaluate.entry import build_task_report
from mlscale.errors import MLScaleError
from mlscale.evaluate.model_comparison import compare_models
from mlscale.evaluate.sample_collector import EvaluatedSamples, SampleCollector
from mlscale.report.html import render_page
from mlscale.task_types.collected_samples import Columns, TaskInfo, convert_to_columns
from mlscale.task_types.registry import get_task_type, list_type_names
from mlscale.task_types.sample_score import SampleScore
from mlscale.task_types.task_type import AnswerNames, PredictionColumns, TargetColumn, TaskType

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
SAMPLES: Mapping[str, tuple[dict[str, Tensor], Tensor, list[float]]] = {
    "classification": ({"logits": LOGITS}, torch.tensor([0, 2]), [1, 0]),
    "multilabel": ({"logits": LOGITS}, torch.tensor([[1.0, 0, 1], [0, 1, 0]]), [2 / 3, 1]),
    "segmentation": (
        {"logits": LOGITS[:, :, None, None].expand(-1, -1, 2, 2)},
        torch.tensor([[[0, 0], [0, 255]], [[1, 1], [0, 0]]]),
        [1, 0.25],
    ),
    "regression": ({"value": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, torch.tensor([[1.0, 4.0], [3.0, 4.0]]), [1, 0]),
    "language": ({"nats": torch.tensor([6.0, 3.0]), "tokens": torch.tensor([3, 2])}, torch.zeros(2, 3), [2, 1.5]),
}
LABELS = ("ant", "bee", "cat")
NAMES = AnswerNames(LABELS, (TargetColumn("depth", "mm"), TargetColumn("width")))


def predict(name: str) -> tuple[TaskType, PredictionColumns]:
    task_type = get_task_type(name)
    outputs = {key: value.numpy() for key, value in SAMPLES[name][0].items()}
    return task_type, task_type.build_predictions(outputs, LABELS)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_score_of_each_sample(name: str) -> None:
    outputs, y, scores = SAMPLES[name]
    task_type = get_task_type(name)
    columns = task_type.compute_columns(outputs, y)
    assert set(task_type.table_columns) <= set(columns)
    assert task_type.truth_column in columns
    found = task_type.score_samples(columns)
    assert found.dtype == np.float64
    assert found.tolist() == pytest.approx(scores)


def test_every_type_is_tested_here() -> None:
    assert list(SAMPLES) == list_type_names()


def test_the_mean_of_a_score_has_an_interval() -> None:
    exact = SampleScore("accuracy", higher_is_better=True, is_share=True, is_binary=True)
    mean = exact.estimate_mean(np.array([1.0] * 45 + [0.0] * 5))
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.9, 0.7864, 0.9565), abs=1e-4)
    assert exact.format_mean(mean) == "accuracy 90.0 % [78.6, 95.7]"
    error = SampleScore("absolute_error", higher_is_better=False)
    values = np.append(np.random.default_rng(0).normal(3, 1, 400), np.nan)  # one without a score
    mean = error.estimate_mean(values)
    assert mean.value == pytest.approx(np.nanmean(values))
    assert mean.high - mean.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert error.format_mean(mean).startswith("absolute error ")
    assert np.isnan(error.estimate_mean(np.array([np.nan])).value)


@pytest.mark.parametrize("name", SAMPLES)
def test_predictions_have_the_types_of_their_columns(name: str) -> None:
    task_type, predictions = predict(name)
    types = task_type.list_prediction_types()
    assert list(types) == list(predictions)
    for column, type_ in types.items():
        values: Any = predictions[column]
        assert len(pa.array(list(values), type_)) == 2
    assert "probabilities" not in task_type.list_prediction_types(probabilities=False)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_json_form_of_a_prediction_fits_its_schema(name: str) -> None:
    task_type, predictions = predict(name)
    answers = json.loads(json.dumps(task_type.build_answers(predictions, NAMES)))
    assert len(answers) == 2
    schema = {**task_type.describe_answer(NAMES), "additionalProperties": False}
    for answer in answers:
        jsonschema.validate(answer, schema)


def test_answers_are_in_the_terms_of_the_task() -> None:
    def build_answer(name: str) -> dict[str, Any]:
        task_type, predictions = predict(name)
        return task_type.build_answers(predictions, NAMES)[0]

    answer = build_answer("classification")
    assert (answer["label"], answer["class"]) == ("ant", 0)
    assert answer["confidence"] == max(answer["probabilities"])
    assert build_answer("multilabel")["labels"] == ["ant"]
    assert build_answer("regression") == {"value": {"depth": 1, "width": 2}, "unit": {"depth": "mm"}}
    assert build_answer("language") == {"nats": 6, "tokens": 3, "nats_per_token": 2}
    mask = build_answer("segmentation")
    assert mask["shares"] == {"ant": 1}
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(mask["mask"])))).tolist() == [[0, 0], [0, 0]]


class Angles(TaskType):
    """Angles in degrees: what a type defines itself."""

    name = "angles"
    default_metric = "val/loss"
    score = SampleScore("angular_error", higher_is_better=False, unit="degrees")
    table_columns = ("truth", "predicted", "loss")

    def compute_columns(self, outputs: Mapping[str, Tensor], y: Tensor) -> dict[str, NDArray[Any]]:
        error = (outputs["angle"] - y + 180) % 360 - 180
        return convert_to_columns(truth=y, predicted=outputs["angle"], loss=error.abs())

    def score_samples(self, columns: Columns) -> NDArray[np.float64]:
        return np.asarray(columns["loss"], np.float64)


def measure_angles(spread: float) -> EvaluatedSamples:
    truth = torch.linspace(0, 359, 80)
    noise = torch.from_numpy(np.random.default_rng(3).normal(0, spread, 80).astype(np.float32))
    gather = SampleCollector(Angles(), TaskInfo(), worst=3)
    gather.collect_batch({"angle": (truth + noise) % 360}, (torch.zeros(80, 4), truth))
    return gather.collect_samples()


def test_a_type_that_defines_the_score_alone_has_report_slices_worst_samples_and_comparison() -> None:
    good, bad = measure_angles(2.0), measure_angles(10.0)
    report = build_task_report(good, {"half": ["a", "b"] * 40})
    assert report.metrics["angular_error"] == pytest.approx(float(np.mean(good.columns["loss"])))
    assert report.metrics["angular_error_low"] < report.metrics["angular_error"] < report.metrics["angular_error_high"]
    assert report.headline.startswith("angular error ")
    assert report.metrics["slices"] == 2
    page = render_page("t", "s", True, {}, {}, report.blocks)
    assert "Angular error of the samples" in page
    assert good.worst[0].key in page
    assert compare_models(good, bad, ("a", "b")).headline.startswith("a is better than b: angular error ")


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("score_samples", ({},)), ("build_predictions", ({}, ())), ("list_prediction_types", ()), ("mark_correct", ({},))],
)
def test_a_type_that_lacks_a_method_names_it(method: str, arguments: tuple[object, ...]) -> None:
    class Bare(TaskType):
        name = "bare"

    with pytest.raises(MLScaleError, match=f"the task type 'bare' has no {method}") as caught:
        getattr(Bare(), method)(*arguments)
    assert f"define {method}" in caught.value.fix
