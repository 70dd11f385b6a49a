"""The part of an encoder that is inside the exported graph, before the model.

Cut the encoder's part out of an exported graph, to compare what it gives before the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.export.graphs.table_graph import (
    FEATURES,
    TOKENS,
    build_document_graph,
    build_table_graph,
    build_text_graph,
)

if TYPE_CHECKING:
    import onnx


def build_encoder_graph(encoder: Encoder) -> tuple[onnx.ModelProto, str] | None:
    """Return the graph from `graph_inputs` to the model's input, and the name of its output; None where the graph
    begins with the model's own tensors.
    """
    if isinstance(encoder, TableEncoder):
        return build_table_graph(encoder), FEATURES
    # ONNX can't express a tokenizer's file: the graph begins at the model's own tensors.
    if isinstance(encoder, TextEncoder | DocumentEncoder) and encoder.graph_start != "bytes":
        return None
    if isinstance(encoder, TextEncoder):
        return build_text_graph(encoder), TOKENS
    if isinstance(encoder, DocumentEncoder):
        return build_document_graph(encoder), TOKENS
    return None


def prepend_encoder_graph(encoder: Encoder, content: bytes) -> bytes:
    """Return an exported model that takes `encoder.graph_inputs` in place of `encoder.inputs`.

    Raises:
        ValueError: the model has another input, or another opset.
    """
    built = build_encoder_graph(encoder)
    if built is None:
        return content
    import onnx
    from onnx import compose

    graph, output = built
    model = onnx.load_from_string(content)
    _drop_unused_domains(model)
    joined = compose.merge_models(graph, model, io_map=[(output, INPUT)])
    # Where it begins, the name of the part is of no use; those of the model's nodes are.
    joined.graph.name = "main_graph"
    serialised: bytes = joined.SerializeToString(deterministic=True)
    return serialised


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    """Remove imports of operator sets that no node uses: ONNX Runtime's quantiser lists each that it knows, in its own
    version, and two parts of a graph must agree on all that they list."""
    used = {node.domain for node in _iterate_nodes(model.graph)}
    used |= {node.domain for function in model.functions for node in function.node}
    needed = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(needed)


def _iterate_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _iterate_nodes(inner)


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
