"""A fault in an exported file is found where it was put; nothing is found where there is none."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from mlscale.compress.quantize import quantize_model
from mlscale.data.encoders.encoder import INPUT
from mlscale.export import layer_bisect
from mlscale.export.layer_bisect import LayerDifference, find_first_difference

Edit = Callable[[onnx.GraphProto], None]


class Small(nn.Module):
    """A convolution with its normalisation, a resize, attention, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.tokens_norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.norm(self.conv(x))), scale_factor=2, mode="nearest")
        tokens = h.flatten(2).transpose(1, 2).unsqueeze(1)  # one head
        tokens = F.scaled_dot_product_attention(tokens, tokens, tokens)
        logits: Tensor = self.head(F.gelu(self.tokens_norm(tokens).mean((1, 2))))
        return logits


def export_model(model: nn.Module, **arrays: NDArray[Any]) -> bytes:
    """Return a model as it is stored: a batch of any size, and no metadata."""
    program = torch.onnx.export(
        model,
        tuple(torch.from_numpy(array[:2]) for array in arrays.values()),
        dynamo=True,
        dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in arrays),
        input_names=list(arrays),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto: Any = program.model_proto
    for node in proto.graph.node:
        node.ClearField("metadata_props")
    content: bytes = proto.SerializeToString()
    return content


def edit_model(content: bytes, edit: Edit) -> bytes:
    proto = onnx.load_from_string(content)
    edit(proto.graph)
    edited: bytes = proto.SerializeToString()
    return edited


def find_node(graph: onnx.GraphProto, operator: str, position: int = 0) -> onnx.NodeProto:
    nodes: list[onnx.NodeProto] = [node for node in graph.node if node.op_type == operator]
    return nodes[position]


def change_constant(name: str, change: Callable[[NDArray[Any]], Any]) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        (item,) = (item for item in graph.initializer if item.name == name)
        array = numpy_helper.to_array(item)
        item.CopyFrom(numpy_helper.from_array(np.asarray(change(array.copy()), array.dtype), name))

    return edit


def change_attribute(operator: str, name: str, value: Any) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        node = find_node(graph, operator)
        others = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend([*others, helper.make_attribute(name, value)])

    return edit


def change_attention_scale(graph: onnx.GraphProto) -> None:
    change_constant(find_node(graph, "Mul").input[1], lambda array: array * 1.1)(graph)


def cast_to_half(graph: onnx.GraphProto) -> None:
    """Round the output of the layer normalisation to half precision and back."""
    node = find_node(graph, "LayerNormalization")
    name = node.output[0]
    node.output[0] = "full"
    at = list(graph.node).index(node) + 1
    graph.node.insert(at, helper.make_node("Cast", ["full"], ["half"], "down", to=TensorProto.FLOAT16))
    graph.node.insert(at + 1, helper.make_node("Cast", ["half"], [name], "up", to=TensorProto.FLOAT))


def cast_what_the_head_reads(graph: onnx.GraphProto) -> None:
    """Round what the last layer reads to half precision and back, by nodes that the trained model has not."""
    node = find_node(graph, "Gemm")
    name, node.input[0] = node.input[0], "again"
    at = list(graph.node).index(node)
    graph.node.insert(at, helper.make_node("Cast", [name], ["half"], "down", to=TensorProto.FLOAT16))
    graph.node.insert(at + 1, helper.make_node("Cast", ["half"], ["again"], "up", to=TensorProto.FLOAT))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = Small()
    with torch.no_grad():
        for _ in range(3):
            model(2 * torch.randn(8, 2, 4, 4) + 1)
    return model.eval()


@pytest.fixture(scope="module")
def samples() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((32, 2, 4, 4), np.float32)


@pytest.fixture(scope="module")
def content(model: nn.Module, samples: NDArray[np.float32]) -> bytes:
    return export_model(model, input=samples)


@pytest.fixture(scope="module")
def int8(content: bytes, samples: NDArray[np.float32]) -> bytes:
    return quantize_model(content, "static", {INPUT: samples})


@pytest.fixture(scope="module")
def traced() -> dict[int, Any]:
    return {}


@pytest.fixture
def trace_once(traced: dict[int, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace each model once for all tests: that is what takes the time."""
    make = layer_bisect._TracedModel

    def trace(model: nn.Module, tensors: Mapping[str, NDArray[Any]], graph: onnx.GraphProto) -> Any:
        if id(model) not in traced:
            traced[id(model)] = make(model, tensors, graph)
        return traced[id(model)]

    monkeypatch.setattr(layer_bisect, "_TracedModel", trace)


@pytest.fixture
def find(model: nn.Module, samples: NDArray[np.float32], trace_once: None) -> Callable[[bytes], LayerDifference | None]:
    """The search in an export of `model`."""
    return lambda content: find_first_difference(model, content, {"input": samples})


@pytest.mark.parametrize(
    ("edit", "operator", "module"),
    [
        (change_constant("conv.weight", lambda a: a * [[[[1]]], [[[1]]], [[[1.2]]], [[[1]]]]), "Conv", "norm"),
        (change_attribute("LayerNormalization", "epsilon", 1e-3), "LayerNormalization", "tokens_norm"),
        (change_attribute("Resize", "nearest_mode", "ceil"), "Resize", ""),
        (change_attention_scale, "MatMul", ""),
        (change_attribute("Softmax", "axis", 1), "MatMul", ""),
        (change_attribute("Gelu", "approximate", "tanh"), "Gelu", ""),
        (change_constant("head.weight", lambda a: a.astype(ml_dtypes.bfloat16)), "Gemm", "head"),
        (cast_to_half, "Cast", "tokens_norm"),
        (cast_what_the_head_reads, "Gemm", "head"),
    ],
)
def test_a_fault_is_named_with_its_node_and_module(
    content: bytes, find: Callable[[bytes], LayerDifference | None], edit: Edit, operator: str, module: str
) -> None:
    found = find(edit_model(content, edit))
    assert found is not None
    assert (found.operator, found.module_path) == (operator, module)
    assert found.sentence.startswith(f"the value that differs most is that of {module or 'the model'} ({operator}, ")
    assert "from the same inputs, it is off by" in found.sentence
    assert found.nodes[-1] == found.node


def test_a_node_that_can_not_be_computed_is_named(
    content: bytes, find: Callable[[bytes], LayerDifference | None]
) -> None:
    found = find(edit_model(content, change_attribute("Gemm", "transB", 0)))
    assert found is not None
    assert (found.operator, found.module_path, found.error) == ("Gemm", "head", np.inf)
    assert "ONNX Runtime can't compute it: " in found.sentence


def test_nothing_is_named_in_a_clean_model(
    content: bytes, int8: bytes, find: Callable[[bytes], LayerDifference | None]
) -> None:
    assert find(content) is None
    assert find(int8) is None


def test_a_wrong_scale_in_int8_is_named(int8: bytes, find: Callable[[bytes], LayerDifference | None]) -> None:
    found = find(edit_model(int8, change_constant("conv.weight_scale", lambda a: a * [1, 4, 1, 1])))
    assert found is not None
    assert found.operator == "DequantizeLinear"
    assert "conv.weight_DequantizeLinear" in found.nodes


class Several(nn.Module):
    """Takes any number of inputs and gives outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.tokens = nn.Linear(3, 2), nn.Embedding(5, 2)

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        numbers, tokens = tensors
        return {"sum": self.numbers(numbers) + self.tokens(tokens).sum(1), "count": (tokens > 0).sum(1)}


def test_several_inputs_and_outputs_behind_an_encoder(trace_once: None) -> None:
    torch.manual_seed(0)
    model, draw = Several().eval(), np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {
        "numbers": draw.standard_normal((8, 3), np.float32),
        "tokens": draw.integers(0, 5, (8, 4)),
    }
    program = torch.onnx.export(
        model,
        tuple(torch.from_numpy(array[:2]) for array in tensors.values()),
        dynamo=True,
        dynamic_shapes=(({0: torch.export.Dim.AUTO}, {0: torch.export.Dim.AUTO}),),
        input_names=list(tensors),
        output_names=["sum", "count"],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto: Any = program.model_proto
    encoder = helper.make_model(
        helper.make_graph(
            [helper.make_node("Cast", ["bytes"], ["encoder/tokens"], "encode", to=TensorProto.INT64)],
            "encoder",
            [helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["batch", 4])],
            [helper.make_tensor_value_info("encoder/tokens", TensorProto.INT64, ["batch", 4])],
        ),
        opset_imports=proto.opset_import,
        ir_version=proto.ir_version,
    )
    joined = compose.merge_models(encoder, proto, io_map=[("encoder/tokens", "tokens")])
    content = joined.SerializeToString()
    samples = {"bytes": tensors["tokens"].astype(np.uint8), "numbers": tensors["numbers"]}
    assert find_first_difference(model, content, samples, tensors=tensors) is None
    faulty = edit_model(content, change_constant("tokens.weight", lambda a: a + 0.1))
    found = find_first_difference(model, faulty, samples, tensors=tensors)
    assert found is not None
    assert (found.operator, found.module_path) == ("Gather", "tokens")
    shifted = {**samples, "bytes": samples["bytes"] + np.uint8(1)}
    found = find_first_difference(model, content, shifted, tensors=tensors)
    assert found is not None
    assert found.node == "encode"


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)

    def forward(self, x: Tensor) -> Tensor:
        encoded: Tensor = self.layers(x)
        return encoded.mean(1)


def test_a_file_of_another_trace_is_refused() -> None:
    """Its names mean other values: torch alone exports its fast path of an encoder's attention."""
    model, samples = Encoder().eval(), torch.randn(2, 6, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (samples,), dynamo=True, input_names=["input"], verbose=False)
    assert program is not None
    with pytest.raises(ValueError, match="is not the value of that name in a new trace"):
        find_first_difference(model, program.model_proto.SerializeToString(), {"input": samples.numpy()})
