"""V2's metadata describe the columns, classes, targets and tensors of each task type."""

from __future__ import annotations

from typing import Any

from mlscale.serve.protocol import v2_metadata
from mlscale.serve.served_model import ServedModel
from tests.made_servables import PENGUIN


def test_v2_metadata_names_the_columns(models: dict[str, ServedModel]) -> None:
    document = v2_metadata.build_model_metadata(models["penguins"])
    assert document["inputs"] == [
        {"name": "numbers", "datatype": "FP64", "shape": [-1, 2]},
        {"name": "texts", "datatype": "BYTES", "shape": [-1, 2]},
    ]
    assert document["parameters"]["columns"] == {
        "numbers": ["bill_length_mm", "body_mass_g"],
        "texts": ["island", "sex"],
    }
    assert [column["name"] for column in document["parameters"]["raw_input"]["columns"]] == list(PENGUIN)
    assert v2_metadata.build_model_metadata(models["tales"])["parameters"]["raw_tensor"] == {
        "name": "text",
        "datatype": "BYTES",
        "shape": [-1],
    }


def test_v2_metadata_names_classes_targets_and_what_a_tensor_is(models: dict[str, ServedModel]) -> None:
    def describe(name: str) -> dict[str, Any]:
        parameters: dict[str, Any] = v2_metadata.build_model_metadata(models[name])["parameters"]
        return parameters

    assert describe("penguins")["labels"] == ["Adelie", "Chinstrap", "Gentoo"]
    assert list(describe("penguins")["outputs"]) == ["logits", "probabilities", "label"]
    assert describe("tags")["labels"] == ["sea", "sky", "sand"]
    assert describe("mass")["targets"] == [{"name": "body_mass_g", "unit": "g"}]
    assert "for each pixel" in describe("masks")["outputs"]["logits"]
    assert "POST /predict" in describe("masks")["outputs"]["logits"]
    assert list(describe("tales")["outputs"]) == ["nats", "tokens"]
    assert "outputs" not in describe("sums")
    assert describe("sums")["runtime"].startswith("ONNX Runtime ")
    assert describe("sums")["runtime"].endswith(" on CPU")
