"""An ONNX model as the steps of a conversion: nodes in order, constants as arrays, and the sizes that are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mlscale.targets.tfserving.operator_table import GraphNode

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Step:
    """A node with the names of its inputs, '' for one left out, and of its outputs."""

    node: GraphNode
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """A graph.

    Attributes:
        steps: in the order in which they are computed.
        constants: by name.
        sizes: of tensors by name; None for a size that varies.
        outputs: their names.
    """

    steps: tuple[Step, ...]
    constants: Mapping[str, NDArray[Any]] = field(repr=False)
    sizes: Mapping[str, list[int | None]] = field(repr=False)
    outputs: tuple[str, ...]


def read_onnx_graph(content: bytes) -> OnnxGraph:
    """Return the graph of a serialised model."""
    import onnx
    from onnx import numpy_helper, shape_inference

    # TensorFlow loses sizes that come from shapes which are computed; ONNX knows more of them.
    model = shape_inference.infer_shapes(onnx.load_from_string(content))
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # Operators leave out outputs that nothing reads, or refuse those that they can't give.
    used = Counter(name for node in graph.node for name in node.input)
    used.update(port.name for port in graph.output)
    sizes = {port.name: _read_sizes(port.type.tensor_type) for port in (*graph.value_info, *graph.output)}
    return OnnxGraph(
        tuple(_read_step(node, used) for node in graph.node),
        constants,
        {name: read for name, read in sizes.items() if read is not None},
        tuple(port.name for port in graph.output),
    )


def _read_sizes(tensor: onnx.TypeProto.Tensor) -> list[int | None] | None:
    """Return the sizes of a tensor; None where not even their number is known."""
    if not tensor.HasField("shape"):
        return None
    return [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]


def _read_step(node: onnx.NodeProto, used: Counter[str]) -> Step:
    from onnx import AttributeProto, helper, numpy_helper

    attributes = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        attributes[attribute.name] = numpy_helper.to_array(value) if attribute.type == AttributeProto.TENSOR else value
    # ONNX's own domain is written in two ways.
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    count = 1 + max((position for position, name in enumerate(node.output) if used[name]), default=0)
    described = GraphNode(f"{domain}{node.op_type}", node.name or node.output[0], attributes, count)
    return Step(described, tuple(node.input), tuple(node.output))
