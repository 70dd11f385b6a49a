"""The servables that this release and earlier ones wrote: each later one reads them, and gets the same answers."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from mlscale.export.servable import load
from mlscale.export.warmup import WARMUP, check_warmup
from tests.contract.test_documents import EXAMPLES, read, validate

STORED = Path(__file__).parent / "examples" / "servable-1"
STORED_2 = STORED.with_name("servable-2")


def test_the_stored_servable_still_answers() -> None:
    servable = load(STORED)
    with np.load(STORED.with_name("servable-1-expected.npz"), allow_pickle=False) as expected:
        printed = servable.predict(expected["pixels"])
        np.testing.assert_allclose(servable.logits(expected["pixels"]), expected["logits"], rtol=0, atol=1e-4)
    assert printed.labels == ["7", "6"]
    reference = servable.read_reference()
    assert {column.name for column in reference.columns} >= {"input.mean_0", "output.label"}
    assert reference.about["samples"] == 360
    assert {column.samples for column in reference.columns} == {360}


def test_its_documents_are_those_of_the_contract() -> None:
    document = yaml.safe_load((STORED / "servable.yaml").read_text())
    validate("servable", document)
    assert document == read(STORED.with_name("servable-1.json"))
    assert read(STORED / "reference" / "profile.json") == read(STORED.with_name("reference-1.json"))
    assert {"servable-1", "reference-1"} <= {path.stem for path in EXAMPLES}


def test_a_stored_servable_of_format_2_answers_rows_in_their_units() -> None:
    servable = load(STORED_2)
    predictions = servable.predict_samples(
        [
            {"island": "Dream", "sex": "male", "bill_mm": 41.5, "flipper_mm": 201},
            {"island": "Tørgersen", "sex": None, "bill_mm": None, "flipper_mm": "188"},
            {"island": "Naboo", "sex": "female", "bill_mm": 39, "flipper_mm": 230.5},
            {"island": "Dream"},
        ]
    )
    assert predictions.bad == {3: "it lacks the columns 'sex', 'bill_mm', 'flipper_mm' (null for a missing value)"}
    answers = servable.task_type.build_answers(predictions.columns, servable.names)
    assert answers == [
        {"value": pytest.approx(value, rel=1e-4), "unit": "g"} for value in (3729.86328, 3568.53516, 3732.14380)
    ]
    assert check_warmup(servable, STORED_2 / WARMUP) == []


def test_the_documents_of_format_2_are_those_of_the_contract() -> None:
    document = yaml.safe_load((STORED_2 / "servable.yaml").read_text())
    validate("servable", document)
    assert document == read(STORED_2.with_name("servable-2.json"))
    validate("warmup", read(STORED_2 / WARMUP / "warmup.json"))
