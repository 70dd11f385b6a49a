"""Samples in the form that a client sends: read by the load test as they were written, and sent one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.commands.lifecycle.expected_answers import ExpectedAnswers
from mlscale.commands.lifecycle.production_samples import LabelledSamples, save_request_samples
from mlscale.loadtest.load_samples import RequestSamples, read_request_samples
from mlscale.loadtest.server_model import InputTensor, ServerModel
from tests.unit.commands.lifecycle.shifts.servables import draw_rows, make_classifier, make_regressor
from tests.unit.commands.lifecycle.shifts.test_input_shifts import draw_picture

TENSOR = InputTensor("input", "uint8", (1, 2, 2))
ROWS = [{"a": 0.5, "c": "x"}, {"a": None, "c": "é"}]
COLUMNS = [{"name": "a", "type": "number"}, {"name": "c", "type": "category"}]


@pytest.mark.parametrize(
    ("form", "raw", "schema"),
    [
        ("row", ROWS, {"type": "table", "columns": COLUMNS}),
        ("text", [b"a\nb\n", b"\xff\xfe caf\xc3"], {"type": "text"}),
        ("image", [draw_picture(1), draw_picture(3)], {"type": "image"}),
    ],
)
def test_the_load_test_sends_what_was_written(form: Any, raw: list[Any], schema: Any, tmp_path: Path) -> None:
    model = ServerModel("m", (TENSOR,), raw_input=schema)
    path = save_request_samples(RequestSamples("", raw=raw, form=form), tmp_path / "samples")
    read = read_request_samples(path, model)
    assert (read.form, list(read.raw)) == (form, raw)


def test_arrays_are_sent_as_tensors(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2)
    path = save_request_samples(RequestSamples("", {"input": pixels}), tmp_path / "samples")
    assert (read_request_samples(path, ServerModel("m", (TENSOR,))).tensors["input"] == pixels).all()


def test_samples_are_selected_with_their_truth_and_come_in_batches() -> None:
    samples = LabelledSamples(list(range(600)), np.arange(600) % 7)
    few = samples.select_samples(np.array([5, 3]))
    assert (few.raw, few.truth.tolist()) == ([5, 3], [5, 3])
    batches = list(samples.iterate_batches())
    assert [row for raw, _ in batches for row in raw] == samples.raw
    assert sum(len(truth) for _, truth in batches) == 600
    assert len(batches) > 1


def test_an_answer_is_compared_with_that_of_the_servable() -> None:
    raw = [{"a": a, "b": b} for a, b in draw_rows().tolist()]
    expected = ExpectedAnswers(make_regressor(lambda x: x[:, 0]), raw)
    value = float(np.float32(raw[300]["a"]))
    assert expected.find_problem({"value": value, "unit": "kg"}, 300) == ""
    assert expected.measure_difference({"value": value + 0.25, "unit": "kg"}, 300) == pytest.approx(0.25)
    assert expected.find_problem({"value": value + 0.25, "unit": "kg"}, 300).startswith("value is ")
    assert expected.find_problem({"value": value, "unit": "g"}, 300) == "unit is 'g', not 'kg'"


def test_another_class_is_a_difference() -> None:
    raw = [{"a": 0.0, "b": 0.0}]
    servable = make_classifier(lambda x: x[:, 0] > 0.5)
    columns = servable.predict_samples(raw).columns
    (answer,) = servable.task_type.build_answers(columns, servable.names)
    answer = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in answer.items()}
    expected = ExpectedAnswers(servable, raw)
    assert expected.find_problem(answer, 0) == ""
    assert expected.find_problem({**answer, "label": "b"}, 0) == "label is 'b', not 'a'"
