"""The first operator of a model that OpenVINO computes otherwise than ONNX Runtime: what a refusal names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.export.engines.onnx_engine import import_onnx_runtime
from mlscale.export.engines.openvino_engine import convert_onnx, import_openvino
from mlscale.export.engines.value_error import measure_error
from mlscale.export.graphs.table_graph import FEATURES

if TYPE_CHECKING:
    import onnx

Values = Mapping[str, NDArray[Any]]
_OPERATOR = 1e-2
"""Relative error above which a value is another computation; a model in half precision rounds by less."""


def find_first_wrong_operator(content: bytes, encoder: Encoder, batch: Values) -> str:
    """Return the first operator that OpenVINO can't compute as ONNX Runtime does, in words; '' where all agree.

    The graph is cut after fewer and fewer nodes, as one that fails may leave no value of those before it.

    Args:
        content: the ONNX model, serialised.
        encoder: of its servable.
        batch: its inputs by name, of a few samples.
    """
    import onnx

    model = onnx.load_from_string(content)
    is_table = isinstance(encoder, TableEncoder)
    nodes = _list_nodes(model.graph, {FEATURES} if is_table else {port.name for port in model.graph.input})
    expected = _compute_by_onnx_runtime(_cut_model(model, nodes), batch)
    given = {FEATURES: encoder.unpack_samples(batch)[INPUT]} if is_table else batch

    def is_wrong(count: int) -> bool:
        cut = _cut_model(model, nodes[:count])
        try:
            computed = _compute_by_openvino(convert_onnx(cut, encoder), given)
        except Exception:  # that it fails is the result; the errors of its C++ share no base
            return True
        return any(measure_error(expected[name], values) > _OPERATOR for name, values in computed.items())

    count = bisect_left(range(1, len(nodes) + 1), True, key=is_wrong)
    if count == len(nodes):
        return ""
    node = nodes[count]
    is_long = any(expected[name].dtype == "int64" for name in node.output if name)
    why = ": its whole numbers of 64 bits are 32 there" if is_long else ""
    return (
        f"the first operator that OpenVINO can't compute as ONNX Runtime does is {node.op_type}, node {node.name}{why}"
    )


def _list_nodes(graph: onnx.GraphProto, starts: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes whose values depend on `starts`, in the order of the graph."""
    reached, nodes = set(starts), []
    for node in graph.node:
        if reached & set(node.input):
            reached |= {name for name in node.output if name}
            nodes.append(node)
    return nodes


def _cut_model(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> bytes:
    """Return the model up to the last of these nodes, with each of their values as an output."""
    import onnx

    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    names = [name for node in nodes for name in node.output if name]
    last = next(at for at, node in enumerate(model.graph.node) if node.output == nodes[-1].output)
    del cut.graph.node[last + 1 :], cut.graph.output[:]
    cut.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    content: bytes = cut.SerializeToString()
    return content


def _compute_by_onnx_runtime(content: bytes, batch: Values) -> Values:
    runtime = import_onnx_runtime()
    options = runtime.SessionOptions()
    # Each node by itself, as the graph has it.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(batch)), strict=True))


def _compute_by_openvino(model: Any, batch: Values) -> Values:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    # Inputs that nothing reads up to the cut have no name there.
    known = {name for port in model.inputs for name in port.get_names()}
    compiled = import_openvino().Core().compile_model(model, "CPU", settings)
    computed = compiled({name: values for name, values in batch.items() if name in known})
    # A tensor may have several names: those of nodes that only pass it on.
    return {name: values for port, values in computed.items() for name in port.get_names()}
