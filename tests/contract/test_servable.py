"""The servable that this release wrote: every later one must read it, and get the same answers from it."""

from pathlib import Path

import numpy as np
import yaml

from mlscale.export.servable import load
from tests.contract.test_documents import EXAMPLES, read, validate

STORED = Path(__file__).parent / "examples" / "servable-1"


def test_the_stored_servable_still_answers() -> None:
    servable = load(STORED)
    with np.load(STORED.with_name("servable-1-expected.npz"), allow_pickle=False) as expected:
        said = servable.predict(expected["pixels"])
        np.testing.assert_allclose(servable.logits(expected["pixels"]), expected["logits"], rtol=0, atol=1e-4)
    assert said.labels == ["7", "6"]
    profile = servable.reference()
    assert profile.about["samples"] == 360
    assert profile.arrays["class_counts"].sum() == profile.arrays["label_counts"].sum() == 360
    assert profile.arrays["sample_mean"].shape == (360, 1)


def test_its_documents_are_those_of_the_contract() -> None:
    document = yaml.safe_load((STORED / "servable.yaml").read_text())
    validate("servable", document)
    assert document == read(STORED.with_name("servable-1.json"))
    assert read(STORED / "reference" / "profile.json") == read(STORED.with_name("reference-1.json"))
    assert {"servable-1", "reference-1"} <= {path.stem for path in EXAMPLES}
