"""The reference profile of every task type: what is stored is what is read, and production looks like it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.contracts import get_format_tag
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.errors import MLScaleError
from mlscale.export.reference_builder import ReferenceBuilder
from mlscale.reference.column_sketch import CategorySketch, NumberSketch
from mlscale.reference.stored_reference import ABOUT, StoredReference
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.registry import get_task_type
from tests.contract.test_documents import validate
from tests.contract.test_servable import STORED
from tests.task_servables import build_examples, get_task_servable, operators_parsed_once
from tests.unit.predict.test_loaded_model import GetServable

__all__ = ["get_task_servable", "operators_parsed_once"]


def describe(reference: StoredReference) -> list[Any]:
    columns: list[Any] = [
        (column.name, column.samples, column.missing, column.effective, column.unit, column.values.tolist())
        if isinstance(column, NumberSketch)
        else (column.name, column.samples, column.missing, column.effective, dict(column.counts), column.other)
        for column in reference.columns
    ]
    score = reference.score
    return [*columns, score and (*score.to_document().items(), score.values.tolist()), reference.words, reference.about]


@pytest.mark.parametrize("name", list(build_examples()))
def test_of_every_type(name: str, get_task_servable: GetServable, tmp_path: Path) -> None:
    servable, rng = get_task_servable(name), np.random.default_rng(3)
    builder = ReferenceBuilder(servable.encoder, servable.task_type, servable.names)
    for count in (5, 7):
        packed = servable.pack_samples(build_examples()[name].draw(rng, count))
        predictions = servable.task_type.build_predictions(servable.compute_samples(packed), servable.labels)
        scores = np.linspace(0, 1, count) if hasattr(servable.task_type, "score") else None
        builder.add_batch(packed, predictions, scores)
    reference = builder.finish(split="val", data_version=None)
    assert reference.about["samples"] == 12
    assert {column.group for column in reference.columns} == {"inputs", "outputs"}
    assert (reference.score is None) == (name == "tensors")
    reference.save_profile(tmp_path)
    validate("reference", json.loads((tmp_path / ABOUT).read_text()))
    assert str(describe(StoredReference.load_profile(tmp_path))) == str(describe(reference))


def test_words_of_the_same_texts_are_not_compared_with_themselves() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{number:x}" for number in range(3000)]
    encoder, task_type = TextEncoder(200), get_task_type("language")

    def draw(count: int) -> list[bytes]:
        return [" ".join(rng.choice(words, 12)).encode() for _ in range(count)]

    builder = ReferenceBuilder(encoder, task_type, AnswerNames())
    builder.add_batch(encoder.pack_samples(draw(400)), {"nats": np.ones(400), "tokens": np.ones(400)}, None)
    reference = builder.finish(split="val", data_version=None)
    (unknown,) = (column for column in reference.columns if column.name == "input.unknown_words")
    assert isinstance(unknown, NumberSketch)
    assert unknown.samples == 200
    # Half of the texts have about 1,650 of the 3,000 words: so does any text that comes later.
    assert 0.3 < unknown.median < 0.6
    assert unknown.missing == 0


def test_format_1_is_read_as_columns_and_a_score(tmp_path: Path) -> None:
    labels = tuple("0123456789")
    reference = StoredReference.load_profile(STORED / "reference", labels)
    assert [column.name for column in reference.columns] == [
        "input.mean_0",
        "input.std_0",
        "output.confidence",
        "output.label",
    ]
    label = reference.columns[-1]
    assert isinstance(label, CategorySketch)
    assert set(label.counts) <= set(labels)
    assert label.samples == reference.about["samples"]
    assert reference.score is not None
    assert (reference.score.name, reference.score.is_binary) == ("accuracy", True)


@pytest.mark.parametrize(
    "document",
    [
        {"columns": 3, "score": None},
        {"columns": [{"name": "input.a", "group": "inputs", "kind": "number"}], "score": None},
        {"columns": [], "score": {"name": "accuracy"}},
        {"columns": []},
    ],
)
def test_a_corrupt_one_is_an_error(tmp_path: Path, document: dict[str, Any]) -> None:
    np.savez(tmp_path / "profile.npz", words=np.zeros(0, np.uint8), scores=np.zeros(0))
    (tmp_path / ABOUT).write_text(json.dumps({"format": get_format_tag("reference"), "samples": 1, **document}))
    with pytest.raises(MLScaleError, match="the reference profile can't be read"):
        StoredReference.load_profile(tmp_path)
    (tmp_path / "profile.npz").write_bytes(b"PK\x03\x04torn")
    with pytest.raises(MLScaleError, match="the reference profile can't be read"):
        StoredReference.load_profile(tmp_path)
