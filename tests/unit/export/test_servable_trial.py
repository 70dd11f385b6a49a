"""What a servable must do before it may serve."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from mlscale.atomic_files import compute_sha256
from mlscale.errors import MLScaleError
from mlscale.export.servable import load
from mlscale.export.servable_trial import describe_schema_change, load_and_try
from tests.made_servables import make_table_servable
from tests.servables import Change, altered, ending_in, not_a_number, renamed_classes
from tests.serving import STORED


def test_one_that_is_whole_passes() -> None:
    assert load_and_try(STORED).labels == tuple("0123456789")


def nan_of_one_class(model: Any) -> None:
    ending_in("Mul", np.array([1] * 9 + [np.nan], np.float32))(model)


def overflowing(model: Any) -> None:
    ending_in("Mul", np.full(10, 1e38, np.float32))(model)


@pytest.mark.parametrize(
    ("graph", "reported"),
    [
        (not_a_number, "not finite"),
        (nan_of_one_class, "not finite"),
        (overflowing, "not finite"),
        (ending_in("Gather", np.arange(9), axis=1), "does not match"),  # a class less than the document states
        (ending_in("Unsqueeze", np.array([2])), "does not match"),
        (ending_in("Gather", np.array([0, 0]), axis=0), "rows for"),  # two answers, whatever is asked
        (ending_in("Cast", to=11), "logits"),  # double
        (ending_in("Reshape", np.array([1, 10])), "can't be used"),  # works for one sample alone
    ],
)
def test_what_can_not_serve(tmp_path: Path, graph: Change, reported: str) -> None:
    folder = altered(tmp_path / "servable", graph=graph)
    with pytest.raises(MLScaleError) as caught:
        load_and_try(folder)
    assert reported in f"{caught.value}"


def test_one_of_other_weights_does_not_repeat_its_recorded_answers(tmp_path: Path) -> None:
    """As when a file was replaced together with its digest."""
    rows = {"size": np.array([1.0, 2.0, 30.0]), "kind": ["a", "b", "a"]}
    folder = make_table_servable(tmp_path / "tables", rows, [("first", {"size": 3, "kind": "a"})])
    assert load_and_try(folder).task_type.name == "classification"
    with pytest.raises(MLScaleError, match="does not answer its warm-up requests as when it was exported") as caught:
        load_and_try(changed_weights(folder))
    assert "first: confidence is" in str(caught.value.why) or "first: label is" in str(caught.value.why)


def changed_weights(folder: Path) -> Path:
    model = onnx.load(folder / "model.onnx")
    for initializer in model.graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if values.ndim == 2 and values.dtype.kind == "f":
            initializer.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.2), initializer.name))
    onnx.save(model, folder / "model.onnx")
    document = yaml.safe_load((folder / "servable.yaml").read_text())
    path = folder / "model.onnx"
    document["files"]["model.onnx"] = {"sha256": compute_sha256(path), "bytes": path.stat().st_size}
    (folder / "servable.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def test_blanks_need_no_answer(tmp_path: Path) -> None:
    """0/0 for an image of one grey: the model divides by the image's deviation."""

    def by_its_own_size(model: Any) -> None:
        import onnx

        for node in model.graph.node:
            node.output[:] = ["before" if name == "logits" else name for name in node.output]
        name = model.graph.input[0].name
        nodes = [
            onnx.helper.make_node("Cast", [name], ["floats"], to=1),
            onnx.helper.make_node("Flatten", ["floats"], ["flat"]),
            onnx.helper.make_node("ReduceMax", ["flat", "axes"], ["largest"], keepdims=1),
            onnx.helper.make_node("Div", ["largest", "largest"], ["one"]),
            onnx.helper.make_node("Mul", ["before", "one"], ["logits"]),
        ]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
        model.graph.node.extend(nodes)

    servable = load_and_try(altered(tmp_path / "servable", graph=by_its_own_size))
    outputs = servable.compute({servable.inputs[0].name: np.zeros((1, 1, 8, 8), np.uint8)})
    assert np.isnan(outputs[servable.output.name]).all()


def test_what_clients_would_notice(tmp_path: Path) -> None:
    stored = load(STORED)
    assert describe_schema_change(stored, load(altered(tmp_path / "same", graph=ending_in("Neg")))) == ""
    renamed = load(altered(tmp_path / "renamed", document=renamed_classes))
    assert describe_schema_change(stored, renamed) == "classes without '0' and with 'zero'"

    def turned(stated: Any) -> None:
        stated["labels"].reverse()

    reversed_ = load(altered(tmp_path / "turned", document=turned))
    assert describe_schema_change(stored, reversed_) == "classes in another order"

    def fewer(stated: Any) -> None:
        stated["labels"] = stated["labels"][:4]
        stated["outputs"][0]["shape"] = [-1, 4]

    few = load(altered(tmp_path / "few", graph=ending_in("Gather", np.arange(4), axis=1), document=fewer))
    assert describe_schema_change(stored, few) == (
        "output logits float32 (-1, 10) becomes logits float32 (-1, 4), classes without '4', '5', '6' and 3 more"
    )
