"""Find the first node of an exported model whose values are not those of the trained one, and the cause.

The trained model is traced again, and the stored graph is cut at each value that torch computes as well. Each part of
it is run on torch's values and compared with torch's result. So a fault shows where it is and nowhere else, and the
rounding of many layers does not add up. What is different in the part that differs gives the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mlscale.export.engines.value_error import measure_error
from mlscale.export.layer_bisect.cut_graph import CutGraph, GraphPart
from mlscale.export.layer_bisect.matched_values import MatchedValues
from mlscale.export.layer_bisect.module_outputs import find_untraceable_module
from mlscale.export.layer_bisect.part_changes import find_part_change
from mlscale.export.layer_bisect.quantization_scales import ScaleCheck, WrongScale
from mlscale.export.layer_bisect.traced_model import TracedModel

if TYPE_CHECKING:
    import onnx

Cause = Literal["precision", "operator", "calibration"]
_SAMPLES, _INT8_SAMPLES = 8, 32
"""Samples that are compared; ranges of activations need more of them than a layer that computes something else."""
_MOST_BYTES = 2**28
"""Of all values of the samples; of a large model fewer are compared, as passes over it take time."""
_ROUNDING, _OPERATOR, _OUTPUT = 1e-5, 1e-3, 1e-4
"""Relative errors: above the first a part differs; up to the second, one that is as torch exports it rounds otherwise;
outputs that differ by less than the third are equal."""
_INT8, _INT8_CHANGED = 0.25, 0.1
"""Error of a part in int8, as a share of its norm, that eight bits explain; in one with a changed node, less."""
_OFF = "from the same inputs, it is off by"
_INTEGER = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")


@dataclass(frozen=True)
class LayerDifference:
    """The first value of an exported model that is not that of the trained one.

    Attributes:
        node: name of the ONNX node that computes it.
        operator: its operator.
        module_path: of the module that the node comes from, below the exported one; '' for itself.
        cause: precision (fewer bits, or rounding that grows), operator (another computation, or other weights), or
            calibration (the scale of an int8 tensor).
        sentence: all of it in words.
    """

    node: str
    operator: str
    module_path: str
    cause: Cause
    sentence: str


def find_first_difference(
    model: nn.Module,
    content: bytes,
    samples: Mapping[str, NDArray[Any]],
    reference: bytes | None = None,
    *,
    tensors: Mapping[str, NDArray[Any]] | None = None,
) -> LayerDifference | None:
    """Return the first node whose values differ from the trained model's; None where nothing does beyond rounding.

    Costs an export, as the model is traced again, and two passes over a few samples.

    Args:
        model: the trained one, as it was exported: in evaluation mode, on the CPU.
        content: the ONNX model that differs, fp32 or int8.
        samples: its inputs by name, (n, …).
        reference: the fp32 ONNX model that an int8 one was made of, for constants that torch does not export by itself.
        tensors: the inputs of `model` in the order of its forward, where the graph begins with an encoder; `samples` by
            default.
    """
    import onnx

    stored = onnx.load_from_string(content)
    is_int8 = any(is_integer_node(node) for node in stored.graph.node)
    count = _INT8_SAMPLES if is_int8 else _SAMPLES
    given = {name: array[:count] for name, array in samples.items()}
    ports = {port.name: samples[port.name] for port in stored.graph.input} if tensors is None else tensors
    inputs = {name: array[:count] for name, array in ports.items()}
    search = _Search(model, stored, given, inputs)
    return search.find_difference(is_int8, reference)


def is_integer_node(node: onnx.NodeProto) -> bool:
    """Return whether a node belongs to a quantised part of a graph."""
    return node.op_type in _INTEGER or node.op_type.startswith("QLinear")


class _Search:
    """A stored graph and a traced model, their values matched by name."""

    def __init__(
        self,
        model: nn.Module,
        stored: onnx.ModelProto,
        samples: Mapping[str, NDArray[Any]],
        inputs: Mapping[str, NDArray[Any]],
    ) -> None:
        self._model, self._stored = model, stored
        self._traced = TracedModel(model, inputs, stored.graph, _MOST_BYTES)
        self._values = MatchedValues(stored.graph, self._traced, samples, inputs)
        self._graph = CutGraph(stored, self._values.list_names())

    def find_difference(self, is_int8: bool, reference: bytes | None) -> LayerDifference | None:
        scales = ScaleCheck(self._graph, self._collect_constants(reference)) if is_int8 else None
        worst: tuple[float, GraphPart | None] = 0.0, None
        for parts, values in self._values.iterate_chunks(self._graph.list_parts()):
            computed = self._graph.run_parts(parts, values)
            for part in parts:
                expected, actual = values[part.target], computed[part.target]
                if scales and self._is_integer(part):
                    wrong = scales.find_wrong_scale(part, {**computed, **values})
                    difference = self._judge_integer_part(part, expected, actual, wrong)
                else:
                    error = measure_error(expected, actual)
                    difference = self._judge_part(part, error, actual) if error > _ROUNDING else None
                    if difference is None and error > max(worst[0], _ROUNDING):
                        worst = error, part
                if difference is not None:
                    return difference
        # Eight bits are another rounding by design: outputs that differ are no fault of a layer.
        difference = None if is_int8 else self._find_growth(*worst)
        return difference or self._find_untraceable()

    def _judge_part(self, part: GraphPart, error: float, actual: NDArray[Any] | Exception) -> LayerDifference | None:
        change = find_part_change(
            [self._graph.nodes[index] for index in part.nodes], self._graph.constants, self._traced.graph
        )
        node = change.node if change else None
        if isinstance(actual, Exception):
            why = change.sentence if change else " ".join(str(actual).split())[:200]
            return self._build_difference(part, node, "operator", f"ONNX Runtime can't compute it: {why}")
        how_far = f"{_OFF} {error:.1g} of its largest value"
        # Before any change of the node: a conversion to float16 changes many nodes, and is itself the cause.
        if getattr(actual, "dtype", None) == np.float16:
            return self._build_difference(part, node, "precision", f"{how_far}; it is computed in float16")
        if change is not None:
            cause: Cause = "precision" if change.lowers_precision else "operator"
            return self._build_difference(part, node, cause, f"{how_far}; {change.sentence}")
        # The node is as torch exports it: small differences are rounding, large ones another computation.
        if error <= _OPERATOR:
            return None
        why = "the node is as torch exports it, and ONNX Runtime computes something else"
        return self._build_difference(part, node, "operator", f"{how_far}; {why}")

    def _judge_integer_part(
        self, part: GraphPart, expected: NDArray[Any], actual: NDArray[Any] | Exception, wrong: WrongScale | None
    ) -> LayerDifference | None:
        if wrong is not None:
            cause: Cause = "calibration" if wrong.is_scale else "operator"
            return self._build_difference(part, wrong.node, cause, wrong.sentence)
        nodes = [self._graph.nodes[index] for index in part.nodes]
        change = find_part_change(nodes, self._graph.constants, self._traced.graph, is_quantized=True)
        error = np.inf
        if not isinstance(actual, Exception) and actual.shape == expected.shape:
            error = float(np.linalg.norm(actual - expected) / max(float(np.linalg.norm(expected)), 1e-30))
        if error <= (_INT8 if change is None else _INT8_CHANGED):
            return None
        how_far = f"{_OFF} {error:.1g} of its size"
        if change is not None:
            return self._build_difference(part, change.node, "operator", f"{how_far}; {change.sentence}")
        # Constants and attributes are right: what is left is the range of an activation.
        quantizers = [node for node in nodes if node.op_type == "QuantizeLinear"]
        node = quantizers[-1] if quantizers else None
        return self._build_difference(part, node, "calibration", f"{how_far}, which eight bits do not explain")

    def _find_growth(self, error: float, part: GraphPart | None) -> LayerDifference | None:
        """Return where rounding is too large, if the outputs of the whole graph differ although each part agrees."""
        whole = CutGraph(self._stored, self._values.given)
        outputs = [port.name for port in self._stored.graph.output if port.name in self._values.sources]
        differs = any(error > _OUTPUT for _, error in self._compare_whole(whole, outputs))
        if differs and part is not None:
            return self._build_difference(
                part, None, "precision", f"{_OFF} {error:.1g} of its largest value by rounding"
            )
        names = [one.target for one in self._graph.list_parts()]
        for one, error in self._compare_whole(whole, names) if differs else ():
            if error > _OUTPUT:
                why = f"it is off by {error:.1g} of its largest value; each layer is right, and their rounding grows"
                return self._build_difference(one, None, "precision", why)
        return None

    def _compare_whole(self, whole: CutGraph, names: list[str]) -> Iterator[tuple[GraphPart, float]]:
        """Yield the error of values of the graph that is not cut."""
        for parts, values in self._values.iterate_chunks([whole.collect_part(name) for name in names]):
            computed = whole.run_parts(parts, self._values.given)
            for part in parts:
                yield part, measure_error(values[part.target], computed[part.target])

    def _find_untraceable(self) -> LayerDifference | None:
        untraceable = find_untraceable_module(self._model, self._traced, _OUTPUT)
        if untraceable is None:
            return None
        path, source, error = untraceable
        names = (name for name, other in self._values.sources.items() if other == source)
        target = next((name for name in names if name in self._graph.makers), None)
        node = self._graph.nodes[self._graph.makers[target]] if target else None
        operator = node.op_type if node else "traced away"
        return LayerDifference(
            node.name if node else "",
            operator,
            path,
            "operator",
            f"the first value that differs is that of {path or 'the model'} ({operator}): torch.export traces another "
            f"computation than it is when it is called, off by {error:.1g} of its largest value",
        )

    def _build_difference(
        self, part: GraphPart, node: onnx.NodeProto | None, cause: Cause, why: str
    ) -> LayerDifference:
        node = node or self._graph.nodes[part.nodes[-1]]
        # A node that is not torch's belongs to what it feeds, and a quantiser's to what it reads.
        readers = [
            self._graph.nodes[index] for index in part.nodes if set(node.output) & set(self._graph.nodes[index].input)
        ]
        names = [node.name, *node.output, *(reader.name for reader in readers), part.target, *node.input[:1]]
        origin = self._traced.get_origin(*(form for name in names for form in (name, name.removesuffix("_quant"))))
        what = f"{node.op_type}, with {origin.folded} folded in" if origin.folded else node.op_type
        sentence = f"the first value that differs is that of {origin.path or 'the model'} ({what}, node {node.name})"
        return LayerDifference(node.name, node.op_type, origin.path, cause, f"{sentence}: {why}")

    def _collect_constants(self, reference: bytes | None) -> dict[str, NDArray[Any]]:
        import onnx
        from onnx import numpy_helper

        graphs = (
            [self._traced.graph] if reference is None else [onnx.load_from_string(reference).graph, self._traced.graph]
        )
        return {item.name: numpy_helper.to_array(item) for graph in graphs for item in graph.initializer}

    def _is_integer(self, part: GraphPart) -> bool:
        return any(is_integer_node(self._graph.nodes[index]) for index in part.nodes)
