"""The part of an encoder that is inside the exported graph, before the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.export.graphs.table_graph import FEATURES, build_table_graph
from mlscale.export.graphs.text_graph import TOKENS, build_document_graph, build_text_graph

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
