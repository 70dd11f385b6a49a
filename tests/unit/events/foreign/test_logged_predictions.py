"""Classes, probabilities, thresholds, percent and numbers of a log become predictions and labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlscale.errors import MLScaleError
from mlscale.task_types.event_forms import AnswerNames, TargetColumn
from tests.unit.events.foreign.foreign_logs import convert, converter, write


@pytest.mark.parametrize(
    ("mapping", "given", "label", "confidence"),
    [
        ("prediction: p", {"p": "2"}, "Gentoo", None),
        ("prediction: p", {"p": 1.0}, "Chinstrap", None),
        ("{prediction: p, confidence: c}", {"p": "Adelie", "c": "0.75"}, "Adelie", 0.75),
        ("probabilities: p", {"p": [0.1, 0.7, 0.2]}, "Chinstrap", 0.7),
        ("probabilities: p", {"p": "0.1,0.2,0.7"}, "Gentoo", 0.7),
        ("{prediction: q, probabilities: p}", {"p": "[0.25, 0.25, 0.5]", "q": 0}, "Adelie", 0.5),
    ],
)
def test_predictions_of_a_class(
    tmp_path: Path, mapping: str, given: dict[str, Any], label: str, confidence: float | None
) -> None:
    entries = yaml.safe_dump({"time": "time", **yaml.safe_load(mapping)})
    _, events, _ = convert(converter(entries), tmp_path, write(tmp_path / "log.jsonl", [{"time": 1767607200, **given}]))
    assert events.label.tolist() == [label]
    assert events.confidence[0] == pytest.approx(confidence if confidence is not None else np.nan, nan_ok=True)


def test_a_threshold_chooses_one_of_two_classes(tmp_path: Path) -> None:
    names = AnswerNames(("no", "yes"))
    made = converter("time: t\nprediction: {field: p, threshold: 0.3, positive: 'yes'}", names=names)
    rows = [{"t": 1767607200, "p": share} for share in ("0.25", "0.5")]
    _, events, _ = convert(made, tmp_path, write(tmp_path / "log.jsonl", rows))
    assert events.label.tolist() == ["no", "yes"]
    assert events.confidence.tolist() == pytest.approx([0.75, 0.5])


def test_the_positive_class_of_a_threshold_may_be_the_first(tmp_path: Path) -> None:
    names = AnswerNames(("ausfall", "ok"))
    made = converter("time: t\nprediction: {field: p, threshold: 0.5, positive: ausfall}", names=names)
    rows = [{"t": 1767607200 + n, "p": share} for n, share in enumerate(("0.25", "90%"))]
    _, events, _ = convert(made, tmp_path, write(tmp_path / "log.jsonl", rows))
    assert events.label.tolist() == ["ok", "ausfall"]
    assert events.confidence.tolist() == pytest.approx([0.75, 0.9])


@pytest.mark.parametrize(("entry", "why"), [("", "'' is not a class"), ("positive: okk, ", "'okk' is not a class")])
def test_a_threshold_without_a_positive_class_is_an_error(entry: str, why: str) -> None:
    with pytest.raises(MLScaleError, match="class whose probability is logged is not known") as caught:
        converter(f"time: t\nprediction: {{{entry}field: p, threshold: 0.5}}", names=AnswerNames(("ausfall", "ok")))
    assert why in caught.value.why
    assert caught.value.fix == "positive: 'ok'"
    with pytest.raises(MLScaleError, match="chooses one of two classes"):
        converter("time: t\nprediction: {field: p, threshold: 0.5}")


def test_percent_are_numbers_and_a_confidence_over_one_is_refused(tmp_path: Path) -> None:
    rows = [{"t": 1767607200 + n, "p": "Adelie", "c": c} for n, c in enumerate(("99.90%", "99.90 %", "99.90", 0.5))]
    path = write(tmp_path / "log.jsonl", [{**row, "c": str(row["c"])} for row in rows])
    report, events, _ = convert(converter("{time: t, prediction: p, confidence: c}"), tmp_path, path)
    assert events.confidence.tolist() == pytest.approx([0.999, 0.999, 0.5])
    assert "99.9 is over 1; percent are read by confidence: {field: <column>, scale: 0.01}" in report.describe_losses()
    scaled = converter("{time: t, prediction: p, confidence: {field: c, scale: 0.01}}")
    _, events, _ = convert(scaled, tmp_path / "b", path)
    assert events.confidence.tolist() == pytest.approx([0.999, 0.999, 0.999, 0.005])


def test_numbers_and_lists_of_labels(tmp_path: Path) -> None:
    one = AnswerNames(targets=(TargetColumn("mass", "g"),))
    rows = [{"t": 1767607200 + n, "p": p, "y": "3.5", "i": n} for n, p in enumerate(("4.5", [5.5], 6))]
    plain = "time: t\nprediction: p\nlabel: y\nid: i\n"
    _, events, labels = convert(converter(plain, "regression", names=one), tmp_path, write(tmp_path / "1.jsonl", rows))
    assert events.outputs["value"].tolist() == [4.5, 5.5, 6.0]
    assert labels == {"0": 3.5, "1": 3.5, "2": 3.5}
    two = AnswerNames(targets=(TargetColumn("mass"), TargetColumn("age")))
    rows = [{"t": 1767607200, "p": [4.5, 2], "y": {"mass": 4, "age": 3}, "i": "a"}]
    made = converter(plain, "regression", names=two)
    _, events, labels = convert(made, tmp_path / "b", write(tmp_path / "2.jsonl", rows))
    assert (events.outputs["mass"].tolist(), events.outputs["age"].tolist()) == ([4.5], [2.0])
    assert labels == {"a": {"mass": 4.0, "age": 3.0}}
    rows = [{"t": 1767607200, "p": '["sea", "sand"]', "y": ["sky"], "i": "a"}]
    made = converter(plain, "multilabel", names=AnswerNames(("sea", "sky", "sand")))
    _, events, labels = convert(made, tmp_path / "c", write(tmp_path / "3.jsonl", rows))
    assert events.predictions == [["sea", "sand"]]
    assert (events.outputs["label_count"].tolist(), labels) == ([2.0], {"a": ["sky"]})
