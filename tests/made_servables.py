"""Small servables of format 2, one of each task type: graphs of a few nodes behind the encoders' own graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder, TensorSpec
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.data.encoders.token_encoders import TokenTextEncoder
from mlscale.data.encoders.tokenizer import Tokenizer
from mlscale.data.table_parsing.columns import DataTable
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.graphs.encoder_graph import prepend_encoder_graph
from mlscale.export.onnx_export import OPSET
from mlscale.export.write_servable import write_servable

_TYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
SPECIES = ("Adelie", "Chinstrap", "Gentoo")
_ROWS = {
    "island": ["Torgersen", "Biscoe", "Dream", "Biscoe", None, "Dream"],
    "bill_length_mm": np.array([39.1, 46.2, 49.5, np.nan, 50.0, 36.7]),
    "body_mass_g": np.array([3750.0, 4500.0, 3800.0, 5000.0, 5700.0, 3450.0]),
    "sex": ["male", "female", "female", "male", "male", "female"],
}
PENGUIN = {"island": "Dream", "bill_length_mm": 39.5, "body_mass_g": 3800, "sex": "female"}
_rng = np.random.default_rng(7)


def encode_penguins() -> TableEncoder:
    """Return the encoder of a small table."""
    table = DataTable(_ROWS, list("012345"))  # type: ignore[arg-type]
    return TableEncoder.fit(table, list(_ROWS), units={"bill_length_mm": "mm", "body_mass_g": "g"}, where="data.train")


def encode_images(side: int = 8, *, is_resized: bool = True) -> ImageEncoder:
    """Return an encoder of colour images."""
    return ImageEncoder((3, side, side), "uint8", is_resized, 1_000_000, (), (), DECODE_VERSION)


def make_servables(folder: Path) -> dict[str, Path]:
    """Write a servable of each task type; return their folders by name."""
    penguins, images, texts = encode_penguins(), encode_images(), TextEncoder(24)
    features = penguins.inputs[0].shape[0]
    targets = [{"name": "body_mass_g", "unit": "g"}]
    mass = TableEncoder(tuple(column for column in penguins.columns if column.name != "body_mass_g"))
    tensors = TensorEncoder((TensorSpec("left", "float32", (2,)), TensorSpec("right", "float32", (2,))))
    return {
        "penguins": _write(
            folder / "penguins", "classification", penguins, {"logits": (3,)}, _multiply("input", features, 3), SPECIES
        ),
        "mass": _write(
            folder / "mass",
            "regression",
            mass,
            {"value": (1,)},
            _multiply("input", mass.inputs[0].shape[0], 1, "value"),
            targets=targets,
        ),
        "reviews": _write(folder / "reviews", "classification", texts, {"logits": (2,)}, _embed(2), ("bad", "good")),
        "photos": _write(folder / "photos", "classification", images, {"logits": (3,)}, _average(3), SPECIES),
        "tags": _write(folder / "tags", "multilabel", images, {"logits": (3,)}, _average(3), ("sea", "sky", "sand")),
        "masks": _write(
            folder / "masks", "segmentation", images, {"logits": (3, 8, 8)}, _project(3), ("ground", "cat", "dog")
        ),
        "tales": _write(folder / "tales", "language", DocumentEncoder(8), {"nats": (), "tokens": ()}, _count_bytes()),
        "sums": _write(
            folder / "sums",
            None,
            tensors,
            {"sum": (2,)},
            [helper.make_node("Add", ["left", "right"], ["sum"])],
        ),
    }


def make_table_servable(folder: Path, rows: Mapping[str, Any], warmup: Sequence[tuple[str, Any]] = ()) -> Path:
    """Write a classifier of three classes for a table of these columns, with warm-up requests."""
    keys = [str(row) for row in range(len(next(iter(rows.values()))))]
    encoder = TableEncoder.fit(DataTable(dict(rows), keys), list(rows), where="data.train")
    nodes = _multiply("input", encoder.inputs[0].shape[0], 3)
    return _write(folder, "classification", encoder, {"logits": (3,)}, nodes, SPECIES, warmup=warmup)


def make_token_servable(folder: Path, tokenizer: str) -> Path:
    """Write a classifier of two classes for texts of a tokenizer's file."""
    encoder = TokenTextEncoder(12, Tokenizer.load_file(tokenizer, None, where="data.tokenizer"))
    return _write(folder, "classification", encoder, {"logits": (2,)}, _embed(2, encoder.vocabulary), ("bad", "good"))


def make_flag_servable(folder: Path) -> Path:
    """Write a model that keeps the numbers whose flags are true."""
    encoder = TensorEncoder((TensorSpec("flags", "bool", (3,)), TensorSpec("numbers", "float32", (3,))))
    nothing = _add_constant(np.array(0, np.float32))
    return _write(
        folder, None, encoder, {"kept": (3,)}, [helper.make_node("Where", ["flags", "numbers", nothing], ["kept"])]
    )


def make_quantized_servable(folder: Path) -> Path:
    """Write a model of int8 whose scale is that of the whole batch, as attention is quantized."""
    weights = _add_constant(np.arange(-6, 6, dtype=np.int8).reshape(3, 4))
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["input"], ["bytes", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["bytes", weights, "zero"], ["products"]),
        helper.make_node("Cast", ["products"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["sums"]),
    ]
    return _write(folder, None, TensorEncoder((TensorSpec("input", "float32", (3,)),)), {"sums": (4,)}, nodes)


def make_fourier_servable(folder: Path) -> Path:
    """Write a model whose outputs are the spectrum of a signal that is made longer by zeros."""
    nodes = [
        helper.make_node("Unsqueeze", ["input", _add_constant(np.array([-1]))], ["column"]),
        helper.make_node(
            "DFT",
            ["column", _add_constant(np.array(16)), _add_constant(np.array(1))],
            ["spectrum"],
            name="transform",
            onesided=1,
        ),
        helper.make_node("ReduceL2", ["spectrum", _add_constant(np.array([-1]))], ["sums"], keepdims=0),
    ]
    return _write(folder, None, TensorEncoder((TensorSpec("input", "float32", (8,)),)), {"sums": (9,)}, nodes)


Nodes = Sequence[Any]
_Constants = dict[str, np.ndarray[Any, Any]]
_constants: _Constants = {}


def _write(
    folder: Path,
    task_type: str | None,
    encoder: Encoder,
    outputs: Mapping[str, tuple[int, ...]],
    nodes: Nodes,
    labels: Sequence[str] = (),
    targets: Sequence[Mapping[str, str]] = (),
    warmup: Sequence[tuple[str, Any]] = (),
) -> Path:
    used = {name for node in nodes for name in node.input}
    inputs = [
        helper.make_tensor_value_info(spec.name, _TYPES[spec.dtype], ["batch", *spec.shape]) for spec in encoder.inputs
    ]
    kinds = {name: TensorProto.INT64 if name == "tokens" else TensorProto.FLOAT for name in outputs}
    gives = [helper.make_tensor_value_info(name, kinds[name], ["batch", *shape]) for name, shape in outputs.items()]
    constants = [numpy_helper.from_array(value, name) for name, value in _constants.items() if name in used]
    graph = helper.make_graph(list(nodes), "model", inputs, gives, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    content = prepend_encoder_graph(encoder, model.SerializeToString())
    engine = OnnxEngine(content)
    document = {
        "name": folder.name,
        "task_type": task_type,
        "raw_input": encoder.describe_raw_input(),
        "graph_start": encoder.graph_start,
        **{
            key: [{"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in ports]
            for key, ports in (("inputs", engine.inputs), ("outputs", engine.outputs))
        },
        "labels": list(labels),
        "targets": list(targets),
        "run": {"id": "made", "folder": "made", "config_hash": "0"},
        "checkpoint": {"name": "last", "step": 1},
        "data_version": None,
        "precision": "fp32",
        "compression": None,
        "metrics": {},
        "licences": {},
        "packages": {},
        "encoder": encoder.to_document(),
    }
    write_servable(folder, model=content, parity={}, reference=None, document=document, warmup=warmup)
    return folder


def _add_constant(value: np.ndarray[Any, Any]) -> str:
    name = f"constant_{len(_constants)}"
    _constants[name] = value
    return name


def _add_weights(*shape: int) -> str:
    return _add_constant(_rng.normal(size=shape).astype(np.float32))


def _multiply(given: str, size: int, count: int, output: str = "logits") -> list[Any]:
    return [helper.make_node("MatMul", [given, _add_weights(size, count)], [output])]


def _average(classes: int) -> list[Any]:
    """Classes of an image by its mean colour."""
    return [
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", _add_constant(np.array([1 / 64], np.float32))], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", _add_constant(np.array([2, 3]))], ["means"], keepdims=0),
        *_multiply("means", 3, classes),
    ]


def _project(classes: int) -> list[Any]:
    """Classes of pixels by their colour."""
    weights = np.eye(classes, 3, dtype=np.float32).reshape(classes, 3, 1, 1)
    return [
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["floats", _add_constant(weights)], ["logits"]),
    ]


def _embed(classes: int, vocabulary: int = 257) -> list[Any]:
    """Classes of a text by its tokens."""
    return [
        helper.make_node("Gather", [_add_weights(vocabulary, 4), "input"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors", _add_constant(np.array([1]))], ["means"], keepdims=0),
        *_multiply("means", 4, classes),
    ]


def _count_bytes() -> list[Any]:
    """The sum of the bytes of a window as its nats, and the positions that count as its tokens."""
    first, last = _add_constant(np.array(0)), _add_constant(np.array(1))
    return [
        helper.make_node("Gather", ["scored", first], ["starts"], axis=1),
        helper.make_node("Gather", ["scored", last], ["ends"], axis=1),
        helper.make_node("Sub", ["ends", "starts"], ["tokens"]),
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", _add_constant(np.array([0.01], np.float32))], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", _add_constant(np.array([1]))], ["nats"], keepdims=0),
    ]
