"""An ONNX graph that is cut at the values that torch computes, too: each part is run on torch's values.

A fault does not reach the parts after it, and rounding does not add up: the part that differs is where the fault is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.export.engines.onnx_engine import import_onnx_runtime

if TYPE_CHECKING:
    import onnx

_COMPUTED = "/computed"


@dataclass(frozen=True)
class GraphPart:
    """The nodes that compute a value of the graph from other values at which it is cut.

    Attributes:
        target: name of the value.
        nodes: their indices in the graph, ascending.
        feeds: names of the values that they are computed from.
        quantized: names of the values that are quantised within the part and computed there.
    """

    target: str
    nodes: tuple[int, ...]
    feeds: frozenset[str]
    quantized: frozenset[str] = frozenset()


class CutGraph:
    """A model whose graph is cut.

    Args:
        model: its nodes in topological order, as ONNX demands.
        cuts: names of the values to cut at; inputs of the graph among them.
    """

    def __init__(self, model: onnx.ModelProto, cuts: Iterable[str]) -> None:
        self._model, self._cuts = model, frozenset(cuts)
        self.nodes = list(model.graph.node)
        self.constants: dict[str, Any] = {item.name: item for item in model.graph.initializer}
        self.makers = {output: index for index, node in enumerate(self.nodes) for output in node.output if output}
        ports = (*model.graph.input, *model.graph.value_info, *model.graph.output)
        self._types = {port.name: port.type.tensor_type.elem_type for port in ports}

    def list_parts(self) -> list[GraphPart]:
        """Return the part of each value that is cut at and that a node computes, in the order of the graph."""
        targets = sorted((self.makers[name], name) for name in self._cuts if name in self.makers)
        return [self.collect_part(target) for _, target in targets]

    def collect_part(self, target: str) -> GraphPart:
        """Return the part that computes a value."""
        nodes, feeds, open_names = set(), set(), [target]
        while open_names:
            name = open_names.pop()
            if name != target and name in self._cuts:
                feeds.add(name)
            elif name in self.makers:
                index = self.makers[name]
                if index not in nodes:
                    nodes.add(index)
                    open_names += list_read_names(self.nodes[index])
            elif name not in self.constants:
                # An input of the graph that torch has no value for.
                feeds.add(name)
        quantizers = (self.nodes[index] for index in nodes if self.nodes[index].op_type == "QuantizeLinear")
        quantized = {node.input[0] for node in quantizers} - feeds - {target}
        return GraphPart(target, tuple(sorted(nodes)), frozenset(feeds), frozenset(quantized))

    def run_parts(self, parts: list[GraphPart], values: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Return what ONNX Runtime computes from `values`: the targets and what is quantised on the way to them; an
        exception for the target of a part that fails.
        """
        try:
            return self._run_together(parts, values)
        except Exception as error:  # onnxruntime's errors share no base
            if len(parts) == 1:
                return {parts[0].target: error}
            # One part fails: which one, halves find out.
            middle = len(parts) // 2
            return self.run_parts(parts[:middle], values) | self.run_parts(parts[middle:], values)

    def _run_together(self, parts: list[GraphPart], values: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        from onnx import helper

        runtime = import_onnx_runtime()
        options = runtime.SessionOptions()
        # One thread: sums are computed in the same order in each run.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Every node by itself, as the graph has it; and a session is made sooner.
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Fatal messages alone: that a part fails is a result here, and is reported as one.
        options.log_severity_level = 4
        feeds = {name: self._convert_value(name, values[name]) for part in parts for name in part.feeds}
        names = list(dict.fromkeys(name for part in parts for name in (part.target, *sorted(part.quantized))))
        graph = self._build_graph(parts, names, feeds)
        model = helper.make_model(
            graph,
            opset_imports=self._model.opset_import,
            ir_version=self._model.ir_version,
            functions=self._model.functions,
        )
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run([self._rename_target(name) for name in names], feeds), strict=True))

    def _build_graph(
        self, parts: list[GraphPart], names: list[str], feeds: Mapping[str, NDArray[Any]]
    ) -> onnx.GraphProto:
        import onnx
        from onnx import helper

        nodes, constants = [], set()
        for index in sorted({index for part in parts for index in part.nodes}):
            node = onnx.NodeProto()
            node.CopyFrom(self.nodes[index])
            constants |= {name for name in list_read_names(node) if name in self.constants}
            for number, name in enumerate(node.output):
                node.output[number] = self._rename_target(name)
            nodes.append(node)
        element_types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
        return helper.make_graph(
            nodes,
            "parts",
            [helper.make_tensor_value_info(name, kind, None) for name, kind in element_types.items()],
            [onnx.ValueInfoProto(name=self._rename_target(name)) for name in names],
            [self.constants[name] for name in sorted(constants)],
        )

    def _rename_target(self, name: str) -> str:
        # What is computed is read out under another name; the nodes after a cut read torch's value, which has its own.
        return name + _COMPUTED if name in self._cuts else name

    def _convert_value(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """Return a value in the type that the graph has it in: a graph in half precision reads halves."""
        from onnx import helper

        kind = self._types.get(name, 0)
        return np.ascontiguousarray(array, helper.tensor_dtype_to_np_dtype(kind) if kind else array.dtype)


def list_read_names(node: onnx.NodeProto) -> list[str]:
    """Return the names of the values that a node reads, also those that only its inner graphs read."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inner = {output for child in graph.node for output in child.output}
            inner |= {item.name for item in (*graph.input, *graph.initializer)}
            names += [name for child in graph.node for name in list_read_names(child) if name not in inner]
            names += [port.name for port in graph.output if port.name not in inner]
    return names
