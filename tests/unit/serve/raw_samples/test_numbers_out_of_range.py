"""Outputs that are not finite are never sent; the number that made them so is named."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import predict_route as predict
from mlscale.serve.served_model import ServedModel, load_model
from tests import made_servables
from tests.made_servables import PENGUIN, make_servables
from tests.unit.serve.raw_samples.raw_requests import JSON


def test_what_is_not_finite_is_not_answered(models: dict[str, ServedModel]) -> None:
    body = json.dumps({"inputs": {"left": [1e38, 1], "right": [3e38, 1]}}).encode()
    request = predict.parse_predict_request(models["sums"], JSON, body)
    outputs = models["sums"].compute(request.samples)
    with pytest.raises(Refused, match="no finite numbers"):
        predict.encode_predict_response(models["sums"], request, ["a"], outputs)


def test_the_row_and_the_column_of_a_huge_number_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Weights of two: they make infinity of a feature over half of float32's largest number.
    monkeypatch.setattr(made_servables, "_rng", SimpleNamespace(normal=lambda size: np.full(size, 2.0)))
    model = load_model(make_servables(tmp_path)["penguins"], name="penguins", version="v1", threads=1, max_batch=4)

    def answer(body: bytes) -> None:
        request = predict.parse_predict_request(model, JSON, body)
        outputs = model.compute(request.samples)
        assert predict.count_numbers(request, outputs) == 0
        predict.encode_predict_response(model, request, ["a", "b"], outputs)

    def refuse(number: str, *, alone: bool = False) -> str:
        row = json.dumps(PENGUIN)
        huge = row.replace(str(PENGUIN["bill_length_mm"]), number)
        assert huge != row
        body = huge if alone else f'{{"inputs": [{row}, {huge}]}}'
        with pytest.raises(Refused) as refused:
            answer(body.encode())
        return refused.value.message

    # Of numbers that float32 has a layer of the model makes infinity.
    assert refuse("1.5e39") == "the model gives no finite numbers for inputs[1]"
    assert refuse("1.5e39", alone=True) == "the model gives no finite numbers for these inputs"
    assert refuse("1e300") == (
        "inputs[1] can't be used: bill_length_mm is 1e+300, and 36.7 to 50 in training: float32, in which models "
        "compute, does not reach so far"
    )
    for number in ("1e999", "9" * 5000, "1" + "0" * 4400):
        assert refuse(number) == "inputs[1] can't be used: bill_length_mm is infinite, not a finite number"
