"""What becomes of a graph in int8: which operators, which types, the same bytes twice, nearly the same logits."""

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlscale.compress import quantize
from mlscale.compress.quantize import Method, Tensors, choose_method, quantize_model, read_calibration_samples
from mlscale.data import Digits
from mlscale.errors import MLScaleError
from mlscale.export.engines.onnx_engine import OnnxEngine

U8, S8 = TensorProto.UINT8, TensorProto.INT8


@pytest.fixture(scope="module")
def samples(digits: Digits) -> Tensors:
    return read_calibration_samples(digits, 64)


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


def test_convolutions_are_static_attention_and_matrices_dynamic(convolutions: bytes, attention: bytes) -> None:
    assert choose_method(convolutions) == "static"
    assert choose_method(attention) == "dynamic"


def test_a_graph_without_weights_has_nothing_to_quantise() -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("input", "logits")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["logits"])], "none", ports[:1], ports[1:])
    with pytest.raises(MLScaleError, match="there is nothing to quantise"):
        choose_method(helper.make_model(graph).SerializeToString())


def test_convolutions_have_u8_activations_and_s8_weights_per_channel(convolutions: bytes, samples: Tensors) -> None:
    model = onnx.load_from_string(quantize_model(convolutions, "static", samples))
    tensors = {item.name: item for item in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node}
    checked = 0
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        for number, kind in ((0, U8), (1, S8)):
            dequantize = made_by[node.input[number]]
            assert dequantize.op_type == "DequantizeLinear"
            assert tensors[dequantize.input[2]].data_type == kind
        weights, scales = (numpy_helper.to_array(tensors[name]) for name in made_by[node.input[1]].input[:2])
        assert scales.shape == (weights.shape[0],)  # one of each output channel
        assert np.abs(weights).max() == 127
        checked += 1
    assert checked == 6
    assert "BatchNormalization" not in operators(quantize_model(convolutions, "static", samples))


def test_products_with_weights_become_integer_and_products_of_activations_stay(attention: bytes) -> None:
    before, after = operators(attention), operators(quantize_model(attention, "dynamic"))
    assert after.count("MatMulInteger") == 6
    assert after.count("MatMul") + after.count("Gemm") == 2
    assert before.count("MatMul") + before.count("Gemm") == 8


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_nearly_the_same_logits_from_a_smaller_file_and_the_same_bytes_twice(
    method: Method, convolutions: bytes, attention: bytes, samples: Tensors
) -> None:
    model = convolutions if method == "static" else attention
    int8 = quantize_model(model, method, samples)
    assert quantize_model(model, method, samples) == int8
    assert len(int8) < len(model) * 0.7
    fp32_logits, int8_logits = (OnnxEngine(content).compute(samples)["logits"] for content in (model, int8))
    error = np.abs(fp32_logits - int8_logits).max() / np.abs(fp32_logits).max()
    assert 0 < error < 0.1


def test_a_sample_does_not_change_the_answers_to_others(attention: bytes, samples: Tensors) -> None:
    """ONNX Runtime finds a dynamic scale over all samples of a batch."""
    engine, few = OnnxEngine(quantize_model(attention, "dynamic")), {name: x[:6] for name, x in samples.items()}
    with_bright = {name: np.concatenate([x, np.full_like(x[:1], 255)]) for name, x in few.items()}
    alone = [engine.compute({name: x[row : row + 1] for name, x in few.items()})["logits"] for row in range(6)]
    for batch in (few, with_bright):
        assert np.array_equal(engine.compute(batch)["logits"][:6], np.concatenate(alone))


def test_tables_of_embeddings_are_stored_in_8_bits() -> None:
    weights = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32), np.eye(16, dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input"], ["embedded"]),
        helper.make_node("ReduceMean", ["embedded", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info("input", TensorProto.INT64, ["batch", 9])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 16])],
        [
            numpy_helper.from_array(weights[0], "table"),
            numpy_helper.from_array(weights[1], "head"),
            numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    fp32 = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    assert choose_method(fp32) == "dynamic"
    int8 = quantize_model(fp32, "dynamic")
    assert not [
        item.name
        for item in onnx.load_from_string(int8).graph.initializer
        if item.dims == [500, 16] and item.data_type == TensorProto.FLOAT
    ]
    assert len(int8) < len(fp32) / 3
    tokens = {"input": np.arange(90).reshape(10, 9)}
    before, after = (OnnxEngine(model).compute(tokens)["logits"] for model in (fp32, int8))
    assert 0 < abs(before - after).max() < 0.05


def test_what_the_quantiser_says_stays_inside(
    convolutions: bytes, samples: Tensors, capfd: pytest.CaptureFixture[str]
) -> None:
    quantize_model(convolutions, "static", samples)
    assert capfd.readouterr() == ("", "")


def test_samples_of_another_shape_are_an_error_with_a_way_out(convolutions: bytes) -> None:
    with pytest.raises(MLScaleError, match="ONNX Runtime can't quantise the model") as reported:
        quantize_model(convolutions, "static", {"input": np.zeros((4, 3, 9, 9), np.uint8)})
    assert reported.value.fix == "compress=none"


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags: avx2", True),
        ("x86_64", "flags: avx2 avx512_vnni", False),
        ("x86_64", "flags: avx_vnni", False),
        ("aarch64", "", False),
    ],
)
def test_weights_have_7_bits_where_products_may_overflow(
    machine: str, flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(quantize, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert quantize.can_int8_overflow() is expected


def test_7_bits_are_7_bits(convolutions: bytes, samples: Tensors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "can_int8_overflow", lambda: True)
    model = onnx.load_from_string(quantize_model(convolutions, "static", samples))
    largest = [np.abs(numpy_helper.to_array(item)).max() for item in model.graph.initializer if len(item.dims) == 4]
    assert max(largest) == 64
