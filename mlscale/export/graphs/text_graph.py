"""The encoders of texts and documents as ONNX graphs, which go before the model's: bytes in, tokens out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.text_encoder import BYTES, LENGTHS, OFFSET, PADDING, TextEncoder
from mlscale.export.graphs.table_graph import IR_VERSION, OPSET

if TYPE_CHECKING:
    import onnx

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
