"""Convert an exported model to half precision: half the size, for GPUs; a CPU computes it in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlscale.errors import MLScaleError
from mlscale.export.graphs.encoder_graph import cut_encoder_part

if TYPE_CHECKING:
    import onnx

    from mlscale.data.encoders.encoder import Encoder

HALF: Mapping[str, Any] = {
    "precision": "fp16",
    "method": "cast",
    "description": "weights and values in float16; inputs and outputs in float32",
}
"""The entry of servable.yaml."""


def convert_to_half(model: bytes, encoder: Encoder) -> bytes:
    """Return an ONNX model whose weights and values are float16; its inputs and outputs keep their types.

    The normalisation of pixels stays in float32, as training has it: the model gets the same values, and is compared.

    Args:
        model: serialised, without the part of the graph that a table's or a text's encoder adds.
        encoder: of its samples.

    Raises:
        MLScaleError: the converter can't convert it.
    """
    import onnx
    from onnx import compose

    try:
        whole, before = onnx.load_from_string(model), cut_encoder_part(model, encoder)
        if before is None:
            converted = _convert_graph(whole)
        else:
            first = onnx.load_from_string(before)
            (start,) = [port.name for port in first.graph.output]
            rest = onnx.utils.Extractor(whole).extract_model([start], [port.name for port in whole.graph.output])
            converted = compose.merge_models(first, _convert_graph(rest), io_map=[(start, start)])
            converted.graph.name = whole.graph.name
        onnx.checker.check_model(converted)
    except Exception as error:  # its errors share no base
        raise MLScaleError(
            "the model can't be converted to half precision",
            where="fp16=true",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="fp16=false",
        ) from error
    content: bytes = converted.SerializeToString(deterministic=True)
    return content


def _convert_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # Operators that ONNX Runtime has in float32 alone stay in it, between casts.
    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    graph = converted.graph
    inputs = {port.name for port in graph.input}
    # The casts of the inputs are appended, and a graph is sorted by use.
    ordered = sorted(graph.node, key=lambda node: not (node.op_type == "Cast" and node.input[0] in inputs))
    del graph.node[:]
    graph.node.extend(ordered)
    return converted
