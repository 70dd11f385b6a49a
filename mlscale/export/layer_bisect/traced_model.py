"""The trained model, exported again with what a stored file leaves out: the module of each node, and torch's values."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlscale.export.served_module import trace_quietly

if TYPE_CHECKING:
    import onnx

_EXAMPLES = 2
"""Samples of the example batch, as in the export itself, so that the nodes get the same names."""
_UNKNOWN_TO_NUMPY = (torch.bfloat16, torch.complex32)
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class NodeOrigin:
    """The module that a node of the graph comes from.

    Attributes:
        path: of the module; '' for the exported one.
        folded: path of a normalisation that the exporter has folded into the node; '' for none.
    """

    path: str
    folded: str = ""


class TracedModel:
    """A model as torch's exporter traces it: the values of its FX graph have the names that the ONNX graph has.

    Args:
        model: in evaluation mode, on the CPU.
        tensors: its inputs by name, in the order of its forward, (n, …).
        graph: the stored ONNX graph, which says which dimensions are of any size.
        most_bytes: of all values of the samples that are used; two are, in any case.

    Attributes:
        graph: the ONNX graph as torch exports it now.
        sizes: bytes of the value of each FX node that is a tensor.
        sources: the FX node of each value of the graph that has one.
        output_names: the FX node of each output; '' for one that is an input or a constant.
        last_nodes: the last FX node of each module, by its path.
        count: of the samples that are used.
        inputs: the tensors of these.
    """

    def __init__(
        self, model: nn.Module, tensors: Mapping[str, NDArray[Any]], graph: onnx.GraphProto, most_bytes: int
    ) -> None:
        self.inputs = [torch.from_numpy(np.ascontiguousarray(array)) for array in tensors.values()]
        ports = list(tensors), [port.name for port in graph.output]
        program = _export_program(model, self.inputs, ports, _find_dynamic_axes(tensors, graph))
        self.graph: onnx.GraphProto = program.model_proto.graph
        # Without guards: they refuse a batch of another size than the example where torch specialised on it.
        self._module = program.exported_program.module(check_guards=False)
        self.sizes, self.output_names = self._measure_values()
        # By bytes and not by time, so that the same samples are used in each run.
        fitting = _EXAMPLES * most_bytes // max(sum(self.sizes.values()), 1)
        self.count = min(max(_EXAMPLES, fitting), *map(len, self.inputs))
        self.sizes = {name: size * self.count // _EXAMPLES for name, size in self.sizes.items()}
        self.inputs = [tensor[: self.count] for tensor in self.inputs]
        self.sources: dict[str, str] = {}
        self._origins: dict[str, NodeOrigin] = {}
        traced = {node.name: node for node in program.exported_program.graph.nodes}
        self.last_nodes = {
            path: node.name for node in traced.values() for path, _ in (node.meta.get("nn_module_stack") or {}).values()
        }
        taken = {item.name for item in (*self.graph.initializer, *self.graph.input)}
        for node in self.graph.node:
            properties = {item.key: item.value for item in node.metadata_props}
            *scopes, source = ast.literal_eval(properties.get(_SCOPES, "['']"))
            origin = _find_origin(node, scopes[-1] if scopes else "", traced.get(source))
            self._origins |= dict.fromkeys((node.name, *node.output), origin)
            for output in node.output:
                # The exporter adds a number to a name that an input or a weight has already.
                is_renamed = source in taken and re.fullmatch(rf"{re.escape(source)}_\d+", output) is not None
                if source in self.sizes and (output == source or is_renamed):
                    self.sources[output] = source
                elif source not in self.sizes and output in self.sizes:
                    # One of several results of an FX node: FX has a node for each that takes it out.
                    self.sources[output] = output

    def get_origin(self, *names: str) -> NodeOrigin:
        """Return where the first known of these nodes or values comes from; the model itself for none."""
        return next((self._origins[name] for name in names if name in self._origins), NodeOrigin(""))

    def compute_values(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """Return torch's values of FX nodes by name; a pass over the model, which holds no others for longer than it
        needs them.
        """
        values: dict[str, NDArray[Any]] = {}

        def save(node: torch.fx.Node, value: Tensor) -> None:
            if node.name in names:
                values[node.name] = value.detach().numpy()

        self._run_interpreter(save, self.inputs)
        return values

    def _measure_values(self) -> tuple[dict[str, int], list[str]]:
        """Return the bytes of the value of each FX node that is a tensor, for the example batch, and the names of those
        that are outputs.
        """
        sizes: dict[str, int] = {}

        def add(node: torch.fx.Node, value: Tensor) -> None:
            sizes[node.name] = value.nbytes

        self._run_interpreter(add, [_take_examples(tensor) for tensor in self.inputs])
        (output,) = (node for node in self._module.graph.nodes if node.op == "output")
        # Outputs may be nested in dicts and tuples; the ONNX graph lists them flat, in this order.
        leaves = torch.utils._pytree.tree_leaves(output.args)
        names = [leaf.name if isinstance(leaf, torch.fx.Node) else "" for leaf in leaves]
        return sizes, [name if name in sizes else "" for name in names]

    def _run_interpreter(self, on_value: Callable[[torch.fx.Node, Tensor], None], inputs: list[Tensor]) -> None:
        class Recorder(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                value = super().run_node(n)
                # An input has the name of an argument, not of a value of the ONNX graph.
                if n.op == "call_function" and isinstance(value, Tensor) and value.dtype not in _UNKNOWN_TO_NUMPY:
                    on_value(n, value)
                return value

        # The interpreter keeps each value until its last use; with gradients, it would keep all of them to the end.
        with torch.no_grad():
            Recorder(self._module).run(*inputs)


def _find_origin(node: onnx.NodeProto, path: str, source: torch.fx.Node | None) -> NodeOrigin:
    # The exporter folds a batch normalisation into the layer before it, and the node is then the normalisation's.
    if source is None or "batch_norm" not in str(source.target) or node.op_type == "BatchNormalization":
        return NodeOrigin(path)
    before = source.all_input_nodes[0].meta.get("nn_module_stack") or {}
    paths = [name for name, _ in before.values()]
    return NodeOrigin(paths[-1] if paths else path, folded=path)


def _find_dynamic_axes(tensors: Mapping[str, NDArray[Any]], graph: onnx.GraphProto) -> list[set[int]]:
    ports = {port.name: port.type.tensor_type.shape.dim for port in graph.input}
    # Tensors that are computed within the graph have no port there: of them, the batch alone is of any size.
    return [{0, *(axis for axis, size in enumerate(ports.get(name, ())) if size.dim_param)} for name in tensors]


def _take_examples(tensor: Tensor) -> Tensor:
    """Return a batch of two, if need be of one sample: torch.export treats a size of 1 as a constant."""
    return tensor[torch.arange(_EXAMPLES) % len(tensor)]


def _export_program(
    model: nn.Module, inputs: list[Tensor], ports: tuple[list[str], list[str]], axes: list[set[int]]
) -> Any:
    # AUTO: the stored file proves that these sizes can be dynamic, and their bounds need not be known.
    shapes: tuple[Any, ...] = tuple(dict.fromkeys(sorted(which), torch.export.Dim.AUTO) for which in axes)
    parameters = inspect.signature(model.forward).parameters.values()
    # torch.export takes the shapes of *args as one entry, a tuple.
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        shapes = (shapes,)
    example = tuple(map(_take_examples, inputs))
    with trace_quietly():
        return torch.onnx.export(
            model,
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=ports[0],
            output_names=ports[1],
            external_data=False,
            verbose=False,
        )
