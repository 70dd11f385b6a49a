"""Find the node of an exported ONNX model whose values are not those of the trained one.

The trained model is traced again, and the stored graph is cut at each value that torch computes as well. Each part of
it is run on torch's values and compared with torch's result. So a fault does not reach the parts after it, and the
rounding of many layers does not add up: the part that differs is where the fault is.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlscale.export.engines.onnx_engine import import_onnx_runtime
from mlscale.export.served_module import trace_quietly

if TYPE_CHECKING:
    import onnx

Values = Mapping[str, NDArray[Any]]
_SAMPLES = 8
_EXAMPLES = 2
"""Samples of the example batch, as in the export itself, so that the nodes get the same names."""
_ROUNDING, _INT8 = 1e-4, 0.1
"""Relative errors of a part that rounding explains, and that eight bits do."""
_UNKNOWN_TO_NUMPY = (torch.bfloat16, torch.complex32)
_COMPUTED = "/computed"


@dataclass(frozen=True)
class LayerDifference:
    """The value of an exported model that is furthest from the trained one's, computed from the same inputs.

    Attributes:
        node: name of the ONNX node that computes it.
        operator: its operator.
        module_path: of the module that the value comes from, below the exported one; '' for itself.
        nodes: all that lie between values which torch has as well, this one last: one of them is wrong.
        error: the largest difference as a share of the largest value; inf where it can't be computed.
        sentence: all of it in words.
    """

    node: str
    operator: str
    module_path: str
    nodes: tuple[str, ...]
    error: float
    sentence: str


def find_first_difference(
    model: nn.Module, content: bytes, samples: Values, *, tensors: Values | None = None
) -> LayerDifference | None:
    """Return the node whose values differ most from the trained model's; None where none does beyond rounding.

    Costs an export, as the model is traced again, and a pass over eight samples.

    Args:
        model: the trained one, as it was exported: in evaluation mode, on the CPU.
        content: the ONNX model that differs, fp32 or int8.
        samples: its inputs by name, (n, …).
        tensors: the inputs of `model` in the order of its forward, where the graph begins with an encoder; `samples` by
            default.

    Raises:
        ValueError: the graph is of another trace of the model, so that its names mean other values.
    """
    import onnx

    stored = onnx.load_from_string(content)
    given = {name: array[:_SAMPLES] for name, array in samples.items()}
    ports = {port.name: samples[port.name] for port in stored.graph.input} if tensors is None else tensors
    inputs = {name: array[:_SAMPLES] for name, array in ports.items()}
    traced = _TracedModel(model, inputs, stored.graph)
    sources = traced.match_values(stored.graph)
    computed = traced.compute_values(set(sources.values()))
    _raise_for_other_trace(stored.graph, {name: computed[fx].shape for name, fx in sources.items()})
    values = {**given, **traced.match_inputs(stored.graph), **{name: computed[fx] for name, fx in sources.items()}}
    graph = _CutGraph(stored, values)
    worst, excess = None, 1.0
    for part, actual in graph.run_parts():
        bound = _INT8 if any(_is_integer(graph.nodes[index]) for index in part.nodes) else _ROUNDING
        error = measure_error(values[part.target], actual)
        if error / bound > excess:
            worst, excess = (part, actual, error), error / bound
    if worst is None:
        return None
    part, actual, error = worst
    *before, node = (graph.nodes[index] for index in part.nodes)
    path = traced.paths.get(sources.get(part.target, ""), "")
    why = f"from the same inputs, it is off by {error:.1g} of its largest value"
    if isinstance(actual, Exception):
        why = f"ONNX Runtime can't compute it: {' '.join(str(actual).split())[:200]}"
    elif error == np.inf:
        why = "from the same inputs, it has another shape or other places that are not finite"
    nodes = f"{node.op_type}, node {node.name}" + (f", from {before[0].name} on" if before else "")
    sentence = f"the value that differs most is that of {path or 'the model'} ({nodes}): {why}"
    names = tuple(item.name for item in (*before, node))
    return LayerDifference(node.name, node.op_type, path, names, error, sentence)


def _raise_for_other_trace(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise where a graph states another shape of a value than torch's value of that name has."""
    for port in (*graph.value_info, *graph.output):
        stated, shape = port.type.tensor_type.shape.dim, shapes.get(port.name)
        if shape is None or not stated:
            continue
        sizes = [size.dim_value for size in stated]  # 0: of any size
        if len(sizes) != len(shape) or any(size not in (0, own) for size, own in zip(sizes, shape, strict=True)):
            raise ValueError(
                f"'{port.name}' of the ONNX file is not the value of that name in a new trace: the file was made by "
                "another exporter, with other dynamic shapes, or of another model"
            )


def _is_integer(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith(("Quantize", "Dequantize", "DynamicQuantize", "QLinear")) or node.op_type.endswith(
        "Integer"
    )


class _TracedModel:
    """A model as torch's exporter traces it: the values of its FX graph have the names that the ONNX graph has.

    Args:
        model: in evaluation mode, on the CPU.
        tensors: its inputs by name, in the order of its forward, (n, …).
        graph: the stored ONNX graph, which says which dimensions are of any size.

    Attributes:
        paths: of the module of each FX node.
    """

    def __init__(self, model: nn.Module, tensors: Values, graph: onnx.GraphProto) -> None:
        self._tensors = tensors
        self._inputs = [torch.from_numpy(np.ascontiguousarray(array)) for array in tensors.values()]
        program = _export_program(model, self._inputs, tensors, graph)
        self._graph: onnx.GraphProto = program.model_proto.graph
        # Without guards: they refuse a batch of another size than the example where torch specialised on it.
        self._module = program.exported_program.module(check_guards=False)
        traced = program.exported_program.graph.nodes
        stacks = {node.name: [*(node.meta.get("nn_module_stack") or {}).values()] for node in traced}
        self.paths: dict[str, str] = {name: stack[-1][0] if stack else "" for name, stack in stacks.items()}

    def match_inputs(self, stored: onnx.GraphProto) -> dict[str, NDArray[Any]]:
        """Return the model's inputs by their names in a stored graph: what reads them first is the same."""
        readers = {node.name: node for node in stored.node}
        matched: dict[str, NDArray[Any]] = {}
        for port, array in zip(self._graph.input, self._tensors.values(), strict=True):
            reader = next((node for node in self._graph.node if port.name in node.input and node.name in readers), None)
            if reader is not None:
                matched[readers[reader.name].input[list(reader.input).index(port.name)]] = array
        return matched

    def match_values(self, stored: onnx.GraphProto) -> dict[str, str]:
        """Return the FX node of each value of a stored graph that has one."""
        known = {node.name for node in self._module.graph.nodes if _is_tensor(node)}
        makers = {output: node for node in stored.node for output in node.output}
        (output,) = (node for node in self._module.graph.nodes if node.op == "output")
        # Outputs may be nested in dicts and tuples; the ONNX graph lists them flat, in this order.
        leaves = torch.utils._pytree.tree_leaves(output.args)
        ends = zip((port.name for port in stored.output), (getattr(leaf, "name", "") for leaf in leaves), strict=True)
        sources = {name: name for name in makers if name in known} | {name: fx for name, fx in ends if fx in known}
        for node in stored.node:
            maker = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
            if maker is not None and maker.op_type == "QuantizeLinear" and maker.input[0] in sources:
                # A quantiser leaves out an operator that only clips, such as ReLU: its output is what comes back.
                sources[node.output[0]] = sources.pop(maker.input[0])
        return sources

    def compute_values(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """Return torch's values of FX nodes by name."""
        values: dict[str, NDArray[Any]] = {}

        class Recorder(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                value = super().run_node(n)
                if n.name in names:
                    # A copy, as a later node may compute in place.
                    values[n.name] = value.detach().clone().numpy()
                return value

        with torch.no_grad():
            Recorder(self._module).run(*self._inputs)
        return values


def _is_tensor(node: torch.fx.Node) -> bool:
    # An input has the name of an argument, not of a value of the ONNX graph.
    value = node.meta.get("val")
    return node.op == "call_function" and isinstance(value, Tensor) and value.dtype not in _UNKNOWN_TO_NUMPY


def _export_program(model: nn.Module, inputs: Sequence[Tensor], tensors: Values, graph: onnx.GraphProto) -> Any:
    ports = {port.name: port.type.tensor_type.shape.dim for port in graph.input}
    # Tensors that are computed within the graph have no port there: of them, the batch alone is of any size.
    axes = [{0, *(axis for axis, size in enumerate(ports.get(name, ())) if size.dim_param)} for name in tensors]
    # AUTO: the stored file proves that these sizes can be dynamic, and their bounds need not be known.
    shapes: tuple[Any, ...] = tuple(dict.fromkeys(sorted(which), torch.export.Dim.AUTO) for which in axes)
    parameters = inspect.signature(model.forward).parameters.values()
    # torch.export takes the shapes of *args as one entry, a tuple.
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        shapes = (shapes,)
    with trace_quietly():
        return torch.onnx.export(
            model,
            # If need be one sample twice: torch.export treats a size of 1 as a constant.
            tuple(tensor[torch.arange(_EXAMPLES) % len(tensor)] for tensor in inputs),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(tensors),
            output_names=[port.name for port in graph.output],
            external_data=False,
            verbose=False,
        )


@dataclass(frozen=True)
class _GraphPart:
    """The nodes, by ascending index, that compute a value of the graph from others at which it is cut: its feeds."""

    target: str
    nodes: tuple[int, ...]
    feeds: frozenset[str]


class _CutGraph:
    """A model whose graph is cut at values that are known: inputs of the graph among them."""

    def __init__(self, model: onnx.ModelProto, values: Values) -> None:
        self._model, self._values = model, values
        self.nodes = list(model.graph.node)
        self._constants: dict[str, Any] = {item.name: item for item in model.graph.initializer}
        self._makers = {output: index for index, node in enumerate(self.nodes) for output in node.output if output}
        ports = (*model.graph.input, *model.graph.value_info, *model.graph.output)
        self._types = {port.name: port.type.tensor_type.elem_type for port in ports}

    def run_parts(self) -> list[tuple[_GraphPart, Any]]:
        """Return what ONNX Runtime computes for each value, in the order of the graph; an exception for what fails."""
        targets = sorted((self._makers[name], name) for name in self._values if name in self._makers)
        parts = [self._collect_part(target) for _, target in targets]
        try:
            return list(zip(parts, self._run_together(parts), strict=True))
        except Exception:  # onnxruntime's errors share no base
            return [(part, self._run_alone(part)) for part in parts]

    def _run_alone(self, part: _GraphPart) -> Any:
        try:
            return self._run_together([part])[0]
        except Exception as error:  # onnxruntime's errors share no base
            return error

    def _collect_part(self, target: str) -> _GraphPart:
        nodes, feeds, open_names = set(), set(), [target]
        while open_names:
            name = open_names.pop()
            if name != target and name in self._values:
                feeds.add(name)
            elif name in self._makers and self._makers[name] not in nodes:
                nodes.add(self._makers[name])
                open_names += _list_read_names(self.nodes[self._makers[name]])
        return _GraphPart(target, tuple(sorted(nodes)), frozenset(feeds))

    def _run_together(self, parts: list[_GraphPart]) -> list[NDArray[Any]]:
        import onnx
        from onnx import helper

        nodes, constants = [], set()
        for index in sorted({index for part in parts for index in part.nodes}):
            node = onnx.NodeProto()
            node.CopyFrom(self.nodes[index])
            constants |= {name for name in _list_read_names(node) if name in self._constants}
            for number, name in enumerate(node.output):
                # What is computed is read out under another name; the nodes after a cut read torch's value.
                node.output[number] = name + _COMPUTED if name in self._values else name
            nodes.append(node)
        feeds = {name: self._convert_value(name) for part in parts for name in part.feeds}
        names = [part.target + _COMPUTED for part in parts]
        graph = helper.make_graph(
            nodes,
            "parts",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
                for name, array in feeds.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in names],
            [self._constants[name] for name in sorted(constants)],
        )
        model = helper.make_model(
            graph,
            opset_imports=self._model.opset_import,
            ir_version=self._model.ir_version,
            functions=self._model.functions,
        )
        runtime = import_onnx_runtime()
        options = runtime.SessionOptions()
        # One thread: sums are computed in the same order in each run.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Every node by itself, as the graph has it; and a session is made sooner.
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Fatal messages alone: that a part fails is a result here, and is reported as one.
        options.log_severity_level = 4
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs: list[NDArray[Any]] = session.run(names, feeds)
        return outputs

    def _convert_value(self, name: str) -> NDArray[Any]:
        """Return a value in the type that the graph has it in: a graph in half precision reads halves."""
        from onnx import helper

        kind, array = self._types.get(name, 0), self._values[name]
        return np.ascontiguousarray(array, helper.tensor_dtype_to_np_dtype(kind) if kind else array.dtype)


def _list_read_names(node: onnx.NodeProto) -> list[str]:
    """Return the names of the values that a node reads, also those that only its inner graphs read."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inner = {output for child in graph.node for output in child.output}
            inner |= {item.name for item in (*graph.input, *graph.initializer)}
            names += [name for child in graph.node for name in _list_read_names(child) if name not in inner]
            names += [port.name for port in graph.output if port.name not in inner]
    return names


_MASKED = np.float32(1e37)
"""What torch masks by minus infinity, ONNX may mask by the least number."""


def measure_error(expected: NDArray[Any], actual: Any) -> float:
    """Return the largest difference, divided by the largest finite value.

    It is 1 for integers that differ anywhere, and infinite where the shapes or what is finite differ.

    Args:
        expected: what torch computes.
        actual: what ONNX Runtime computes, or the exception that it raises.
    """
    if isinstance(actual, Exception) or actual.shape != expected.shape:
        return np.inf
    if expected.dtype.kind != "f":
        return float(not np.array_equal(expected, actual))
    # The difference of two float16 values can overflow, and its steps are coarse.
    wanted, got = expected.astype(np.float32), actual.astype(np.float32)
    is_finite = np.abs(wanted) < _MASKED
    # A mask of -inf and one of the lowest number are both right, as long as they mask the same places.
    if not np.array_equal(is_finite, np.abs(got) < _MASKED):
        return np.inf
    if not is_finite.any():
        return 0.0
    # A value that is 0 throughout must not be divided by.
    largest = max(float(np.abs(wanted[is_finite]).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(got[is_finite] - wanted[is_finite]).max()) / largest
