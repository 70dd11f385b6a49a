"""Cut the encoder's part out of an exported graph, to compare what it gives before the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.export.graphs.table_graph import FEATURES
from mlscale.export.graphs.text_graph import TOKENS

if TYPE_CHECKING:
    import onnx

_NORMALISING = ("Cast", "Sub", "Div")


def cut_encoder_part(content: bytes, encoder: Encoder) -> bytes | None:
    """Return the graph from its inputs to the encoded tensor, its single output; None where it has no such part.

    Args:
        content: an exported model.
        encoder: of its samples.
    """
    import onnx

    model = onnx.load_from_string(content)
    if isinstance(encoder, TableEncoder):
        output, kind, rank = FEATURES, onnx.TensorProto.FLOAT, 2
    elif isinstance(encoder, TextEncoder | DocumentEncoder) and encoder.graph_start == "bytes":
        output, kind, rank = TOKENS, onnx.TensorProto.INT64, 2
    elif isinstance(encoder, ImageEncoder) and encoder.mean:
        output, kind, rank = _find_normalised(model.graph), onnx.TensorProto.FLOAT, 4
    else:
        return None
    if not any(output in node.output for node in model.graph.node):
        return None
    return _cut_before(model, output, kind, rank)


def _find_normalised(graph: onnx.GraphProto) -> str:
    """Return the name of the normalised pixels: what the chain of a cast, a subtraction and a division gives."""
    current, left = INPUT, list(_NORMALISING)
    while left:
        readers = [node for node in graph.node if current in node.input]
        if len(readers) != 1 or readers[0].op_type not in left:
            break
        # Each of them once, in this order; float input needs no cast.
        left = left[left.index(readers[0].op_type) + 1 :]
        current = readers[0].output[0]
    return current if not left else ""


def _cut_before(model: onnx.ModelProto, output: str, kind: int, rank: int) -> bytes:
    """Return the nodes that an output needs, as a model."""
    from onnx import helper

    graph, needed, nodes = model.graph, {output}, []
    for node in reversed(graph.node):  # they are sorted: what a node takes comes before it
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    shape = ["batch", *(None for _ in range(rank - 1))]
    part = helper.make_model(
        helper.make_graph(
            nodes[::-1],
            "encoder",
            [value for value in graph.input if value.name in needed],
            [helper.make_tensor_value_info(output, kind, shape)],
            [value for value in graph.initializer if value.name in needed],
        ),
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
    )
    serialised: bytes = part.SerializeToString()
    return serialised
