"""The encoder of a table as an ONNX graph, which goes before the model's: bitwise `TableEncoder.encode_samples`.

The graph takes rows packed into two tensors (`TableEncoder.pack_samples`), one of all numbers and one of all texts: an
input for each column costs eight times the time of a row. It computes in float64, as numpy does, and casts at the end.

The encoders of texts and documents as ONNX graphs, which go before the model's: bytes in, tokens out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn
from mlscale.data.encoders.table_encoder import NUMBERS, TEXTS, TableEncoder
from mlscale.data.encoders.text_encoder import BYTES, LENGTHS, OFFSET, PADDING, TextEncoder

if TYPE_CHECKING:
    import onnx

OPSET, ML_OPSET, IR_VERSION = 20, 4, 10
FEATURES = "encoder/features"
"""The output, float (n, features)."""


def build_table_graph(encoder: TableEncoder) -> onnx.ModelProto:
    """Return the graph of an encoder, for rows of any number."""
    from onnx import TensorProto, checker, helper

    graph = _GraphParts()
    numbers = [column for column in encoder.columns if isinstance(column, NumberColumn)]
    categories = [column for column in encoder.columns if isinstance(column, CategoryColumn)]
    inputs, parts, flags = [], [], []
    if numbers:
        inputs.append(helper.make_tensor_value_info(NUMBERS, TensorProto.DOUBLE, ["batch", len(numbers)]))
        scaled, missing = _add_numbers(graph, numbers)
        parts.append(scaled)
        flags += missing
    if categories:
        inputs.append(helper.make_tensor_value_info(TEXTS, TensorProto.STRING, ["batch", len(categories)]))
        flags += [_add_category(graph, column, position) for position, column in enumerate(categories)]
    if flags:
        together = graph.add_node("Concat", flags, "flags", axis=1) if len(flags) > 1 else flags[0]
        parts.append(graph.add_node("Cast", [together], "flags_float", to=TensorProto.FLOAT))
    features = graph.add_node("Concat", parts, "joined", axis=1) if len(parts) > 1 else parts[0]
    order = graph.add_constant("order", np.array(_find_feature_order(encoder), np.int64))
    # Features are joined by kind, which needs few nodes; the model expects the order of the columns.
    graph.add_node("Gather", [features, order], "features", axis=1)
    width = len(encoder.feature_names)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "table_encoder",
            inputs,
            [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", width])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="mlscale",
    )
    checker.check_model(model)
    return model


class _GraphParts:
    """Nodes and constants, named so that they clash with none of a model's."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(value, f"encoder/{name}"))
        return f"encoder/{name}"

    def add_node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        # The prefix keeps the names apart from those of the model, with which the graph is merged.
        name = f"encoder/{output}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name


def _add_numbers(graph: _GraphParts, columns: list[NumberColumn]) -> tuple[str, list[str]]:
    """Return the scaled numbers, float, and the flags of missing ones, bool (n, columns with an indicator)."""
    from onnx import TensorProto

    statistics = {
        name: graph.add_constant(name, np.array([[getattr(column, name) for column in columns]], np.float64))
        for name in ("median", "mean", "std")
    }
    missing = graph.add_node("IsNaN", [NUMBERS], "missing")
    filled = graph.add_node("Where", [missing, statistics["median"], NUMBERS], "filled")
    centred = graph.add_node("Sub", [filled, statistics["mean"]], "centred")
    scaled = graph.add_node("Div", [centred, statistics["std"]], "scaled")
    scaled = graph.add_node("Cast", [scaled], "scaled_float", to=TensorProto.FLOAT)
    flagged = [position for position, column in enumerate(columns) if column.indicator]
    if not flagged:
        return scaled, []
    indices = graph.add_constant("flagged", np.array(flagged, np.int64))
    return scaled, [graph.add_node("Gather", [missing, indices], "missing_flagged", axis=1)]


def _add_category(graph: _GraphParts, column: CategoryColumn, position: int) -> str:
    """Return the flags of a column's categories, bool (n, categories)."""
    index = graph.add_constant(f"column_{position}", np.array([position], np.int64))
    text = graph.add_node("Gather", [TEXTS, index], f"text_{position}", axis=1)
    keys = [value.encode("utf-8") for value in column.values]
    # -1 equals no position: an unknown category is zeros alone.
    matched = graph.add_node(
        "LabelEncoder",
        [text],
        f"category_{position}",
        domain="ai.onnx.ml",
        keys_strings=keys,
        values_int64s=list(range(len(keys))),
        default_int64=-1,
    )
    positions = graph.add_constant(f"positions_{position}", np.arange(len(keys), dtype=np.int64)[None])
    return graph.add_node("Equal", [matched, positions], f"is_category_{position}")


def _find_feature_order(encoder: TableEncoder) -> list[int]:
    """Return the place of each feature in the joined tensor: all scaled numbers, then all flags of missing ones, then
    the categories of each column."""
    numbers = [column for column in encoder.columns if isinstance(column, NumberColumn)]
    scaled, flag = 0, len(numbers)
    category = flag + sum(column.indicator for column in numbers)
    order: list[int] = []
    for column in encoder.columns:
        if isinstance(column, NumberColumn):
            order.append(scaled)
            scaled += 1
            if column.indicator:
                order.append(flag)
                flag += 1
        else:
            order += range(category, category + len(column.values))
            category += len(column.values)
    return order


TOKENS = "encoder/tokens"
"""The output, int64 (n, length)."""


def build_text_graph(encoder: TextEncoder) -> onnx.ModelProto:
    """Return the graph of an encoder of texts, for any number of them: bitwise `TextEncoder.encode_samples`."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "offset": np.array(OFFSET, np.int64),
        "padding": np.array(PADDING, np.int64),
        "axis": np.array([1], np.int64),
        "positions": np.arange(encoder.length, dtype=np.int64)[None],
    }
    nodes = [
        helper.make_node("Cast", [BYTES], ["encoder/numbers"], to=TensorProto.INT64),
        helper.make_node("Add", ["encoder/numbers", "encoder/offset"], ["encoder/shifted"]),
        helper.make_node("Unsqueeze", [LENGTHS, "encoder/axis"], ["encoder/lengths"]),
        # A zero byte of a text and the padding after it differ by the length alone.
        helper.make_node("Less", ["encoder/positions", "encoder/lengths"], ["encoder/is_text"]),
        helper.make_node("Where", ["encoder/is_text", "encoder/shifted", "encoder/padding"], [TOKENS]),
    ]
    return _build_model(
        nodes,
        [
            helper.make_tensor_value_info(BYTES, TensorProto.UINT8, ["batch", encoder.length]),
            helper.make_tensor_value_info(LENGTHS, TensorProto.INT64, ["batch"]),
        ],
        encoder.length,
        [numpy_helper.from_array(value, f"encoder/{name}") for name, value in constants.items()],
    )


def build_document_graph(encoder: DocumentEncoder) -> onnx.ModelProto:
    """Return the graph of an encoder of documents; the positions that are scored go to the model as they are."""
    from onnx import TensorProto, helper

    width = encoder.length + 1
    nodes = [helper.make_node("Cast", [BYTES], [TOKENS], to=TensorProto.INT64)]
    given = [helper.make_tensor_value_info(BYTES, TensorProto.UINT8, ["batch", width])]
    return _build_model(nodes, given, width, [])


def _build_model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    width: int,
    constants: list[onnx.TensorProto],
) -> onnx.ModelProto:
    from onnx import TensorProto, checker, helper

    # Errors of ONNX Runtime name the node that fails.
    for node in nodes:
        node.name = node.output[0]
    tokens = helper.make_tensor_value_info(TOKENS, TensorProto.INT64, ["batch", width])
    model = helper.make_model(
        helper.make_graph(nodes, "text_encoder", inputs, [tokens], constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mlscale",
    )
    checker.check_model(model)
    return model
