"""SavedModels: what is written, what is refused, and by which name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.onnx_export import export_onnx
from mlscale.export.served_module import build_served_module
from mlscale.task_types.tensor_type import TensorType
from tests.operators import operators_parsed_once
from tests.unit.targets.tfserving.single_nodes import Arrays, assert_same, build_model

pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'mlscale[tfserving]'")
from mlscale.targets.tfserving.saved_model import SavedModelEngine, trace_function, write_saved_model

__all__ = ["operators_parsed_once"]
ROW = np.ones((2, 3), np.float32)


def convert(model: bytes, folder: Path) -> tuple[OnnxEngine, SavedModelEngine]:
    """Both engines of a model."""
    engine = OnnxEngine(model)
    write_saved_model(model, engine.inputs, engine.outputs, folder)
    return engine, SavedModelEngine(folder)


def refuse(model: bytes, folder: Path, given: Arrays) -> MLScaleError:
    """The error of a model that TensorFlow can't express; nothing is written."""
    inputs = [Port(name, values.dtype.name, (-1, *values.shape[1:])) for name, values in given.items()]
    with pytest.raises(MLScaleError) as raised:
        write_saved_model(model, inputs, [Port("y", "float32", (-1, 3))], folder)
    assert not folder.exists()
    return raised.value


class Mixed(nn.Module):
    """Convolutions of one axis over a text of any length, a normalisation, and attention by their mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.convolution = nn.Embedding(40, 8), nn.Conv1d(8, 8, 3, padding=1)
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.convolution(self.embedding(tokens).transpose(1, 2))).transpose(1, 2)
        x = self.norm(x)
        x = x + self.attention(x, x, x, key_padding_mask=tokens == 0, need_weights=False)[0]
        logits: torch.Tensor = self.head(x.masked_fill((tokens == 0)[..., None], 0).sum(1))
        return logits


class Bilinear(nn.Module):
    """An einsum of three operands."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,bj,ijk->bk", x, x, self.weight)


def test_an_einsum_of_three_operands_takes_batches_of_any_size(tmp_path: Path) -> None:
    # The package comes with TensorFlow, and chooses the order of operands by their sizes.
    assert torch.backends.opt_einsum.is_available()
    model = Bilinear()
    served = build_served_module(model, TensorType(), TensorEncoder.from_shape((3,), "float32"))
    _, engine = convert(export_onnx(served), tmp_path / "model")
    given = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = model(torch.from_numpy(given)).detach().numpy()
    np.testing.assert_allclose(engine.compute({"input": given})["output"], expected, rtol=1e-4, atol=1e-5)


def test_importing_tensorflow_prints_warnings_and_errors_alone() -> None:
    code = """if True:
        import os
        from mlscale.targets.tfserving.saved_model import drop_information
        from mlscale.targets.tfserving.saved_model import import_tensorflow
        import_tensorflow()
        with drop_information():
            os.write(2, b"I0000 00:00:1 a.cc:1] information\\nE0000 00:00:1 a.cc:1] an error\\n")
            os.write(2, b"the last words")
            os.abort()
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines() == ["E0000 00:00:1 a.cc:1] an error", "the last words"]
    assert ran.returncode < 0


@pytest.mark.usefixtures("operators_parsed_once")
def test_batch_and_length_may_be_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Mixed().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=4, max=4096)
    tokens = torch.randint(1, 40, (2, 16))
    program = torch.onnx.export(
        model, (tokens,), dynamo=True, dynamic_shapes=({0: batch, 1: length},), opset_version=20,
        input_names=["tokens"], output_names=["logits"], external_data=False, verbose=False,
    )  # fmt: skip
    assert program is not None
    proto: Any = program.model_proto
    onnx_engine, engine = convert(proto.SerializeToString(), tmp_path / "saved")
    engine.check_ports(onnx_engine.inputs, onnx_engine.outputs)
    assert engine.inputs == (Port("tokens", "int64", (-1, -1)),)
    for size, most in ((1, 4), (3, 33), (16, 200)):
        tokens = torch.randint(0, 40, (size, most))
        tokens[:, 0] = 1
        with torch.no_grad():
            expected = model(tokens).numpy()
        assert_same({"logits": expected}, engine.compute({"tokens": tokens.numpy()}), 1e-5)


def test_no_rows_are_answered_by_none(tmp_path: Path) -> None:
    model = build_model([helper.make_node("Neg", ["x"], ["y"])], {"x": ROW}, {}, ["y"])
    onnx_engine, engine = convert(model, tmp_path / "saved")
    assert engine.compute({"x": ROW[:0]})["y"].shape == onnx_engine.compute({"x": ROW[:0]})["y"].shape == (0, 3)


def test_constants_are_computed_before(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["a"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Constant", [], ["b"], value_int=2),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["a", "c"], ["d"]),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    model = build_model(nodes, {"x": ROW}, {}, ["y"])
    onnx_engine, engine = convert(model, tmp_path / "saved")
    assert_same(onnx_engine.compute({"x": ROW}), engine.compute({"x": ROW}))
    operations = {node.type for node in trace_function(model, engine.inputs, engine.outputs).graph.get_operations()}
    assert "Mul" not in operations


def test_images_are_transposed_once_at_each_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 4, 3, 3)).astype(np.float32)
    scale = rng.normal(size=(4, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["a", "scale"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "kernel"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["d", "b"], ["e"]),
        helper.make_node("Concat", ["e", "c"], ["f"], axis=1),
        helper.make_node("MaxPool", ["f"], ["y"], kernel_shape=[2, 2]),
    ]
    x = rng.normal(size=(3, 4, 7, 6)).astype(np.float32)
    model = build_model(nodes, {"x": x}, {"kernel": kernel, "scale": scale}, ["y"])
    onnx_engine, engine = convert(model, tmp_path / "saved")
    assert_same(onnx_engine.compute({"x": x}), engine.compute({"x": x}))
    graph = trace_function(model, onnx_engine.inputs, onnx_engine.outputs).graph
    assert [node.type for node in graph.get_operations()].count("Transpose") == 2


def test_all_operators_without_counterpart_are_named_at_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Det", ["square"], ["a"]),
        helper.make_node("RandomNormalLike", ["x"], ["b"], name="noise"),
        helper.make_node("Neg", ["a"], ["c"]),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["d"], mode="linear", axes=[0]),
        helper.make_node("Scaler", ["c"], ["e"], domain="ai.onnx.ml"),
        helper.make_node("Add", ["x", "x"], ["y"]),
    ]
    square = np.ones((2, 3, 3), np.float32)
    model = build_model(nodes, {"x": ROW, "square": square}, {"sizes": np.array([4])}, ["y"])
    error = refuse(model, tmp_path / "saved", {"x": ROW, "square": square})
    assert error.what == (
        "TensorFlow has no counterpart of Det, RandomNormalLike, Resize (an axis of any size), ai.onnx.ml.Scaler"
    )
    assert "RandomNormalLike: 1 node, such as noise" in error.why
    assert error.fix.startswith("target=onnx")


def test_int8_whose_scales_are_those_of_a_batch_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["a", "weights", "zero"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    model = build_model(nodes, {"x": ROW}, {"weights": np.ones((3, 3), np.int8)}, ["y"])
    error = refuse(model, tmp_path / "saved", {"x": ROW})
    assert error.what == "TensorFlow has no counterpart of DynamicQuantizeLinear, MatMulInteger"
    assert error.fix.startswith("compressed=false")


def test_a_name_that_tensorflow_changes_is_refused(tmp_path: Path) -> None:
    model = build_model([helper.make_node("Neg", ["x.1"], ["y"])], {"x.1": ROW}, {}, ["y"])
    assert "can't keep the name of the input 'x.1'" in refuse(model, tmp_path / "saved", {"x.1": ROW}).what


def test_names_of_outputs_are_free(tmp_path: Path) -> None:
    model = build_model([helper.make_node("Neg", ["x"], ["scores/all 1"])], {"x": ROW}, {}, ["scores/all 1"])
    _, engine = convert(model, tmp_path / "saved")
    assert (engine.compute({"x": ROW})["scores/all 1"] == -ROW).all()


def test_a_folder_without_a_model_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="the SavedModel can't be used") as raised:
        SavedModelEngine(tmp_path)
    assert "target=tfserving" in raised.value.fix


def test_other_ports_than_the_servables_are_refused(tmp_path: Path) -> None:
    _, engine = convert(build_model([helper.make_node("Neg", ["x"], ["y"])], {"x": ROW}, {}, ["y"]), tmp_path / "saved")
    with pytest.raises(MLScaleError, match="can't be used") as raised:
        engine.check_ports(engine.inputs, [Port("z", "float32", (-1, 3))])
    assert "does not match the servable" in raised.value.why
    assert raised.value.exit == Exit.USER
