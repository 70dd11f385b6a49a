"""Convert the nodes of an ONNX graph to TensorFlow, one after the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.targets.tfserving.onnx_graph import OnnxGraph, Step
from mlscale.targets.tfserving.operator_table import OPERATORS, GraphNode, NotExpressible, Operator, Tensor
from mlscale.targets.tfserving.operators import load_operators


class GraphValue:
    """A tensor, (n, channels, …) as in ONNX, or (n, …, channels) as TensorFlow's kernels for the CPU compute it.

    Neighbouring operators pass channels last on; a transposition that nothing reads is left out of the graph.

    Args:
        first: the tensor as ONNX has it.
        last: with its second axis moved to the end.
    """

    def __init__(self, first: Tensor = None, last: Tensor = None) -> None:
        self._first, self._last = first, last
        self.is_last = first is None

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len((self._first if self._last is None else self._last).shape)

    def get_first(self) -> Any:
        """Return (n, channels, …)."""
        if self._first is None:
            import tensorflow as tf

            axes = range(self.rank)
            self._first = tf.transpose(self._last, (0, axes[-1], *axes[1:-1]))
        return self._first

    def get_last(self) -> Any:
        """Return (n, …, channels)."""
        if self._last is None:
            import tensorflow as tf

            self._last = tf.transpose(self._first, (0, *range(2, self.rank), 1))
        return self._last

    def restrict_shape(self, sizes: list[int | None]) -> None:
        """State sizes that ONNX knows, in its order, where TensorFlow knows none."""
        moved = [*sizes[:1], *sizes[2:], *sizes[1:2]]
        for tensor, stated in ((self._first, sizes), (self._last, moved)):
            if tensor is not None:
                # ONNX counts a last window that begins in the padding, which no runtime computes.
                known = tensor.shape.as_list()
                tensor.set_shape([size if own is None else own for size, own in zip(stated, known, strict=True)])


_Value = GraphValue | NDArray[Any] | None
# Scales that a batch is given as a whole would make the answer to a sample depend on the others of its batch.
_INT8 = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul")


def compute_graph(graph: OnnxGraph, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs of a graph by name, as tensors of the function that is traced.

    Args:
        graph: to be converted.
        given: its inputs by name.

    Raises:
        MLScaleError: TensorFlow has no counterpart of some nodes: all of them are named.
    """
    load_operators()
    values: dict[str, _Value] = {"": None, **graph.constants}
    values |= {name: GraphValue(tensor) for name, tensor in given.items()}
    problems: dict[str, list[str]] = {}
    for step in graph.steps:
        operator, name = step.node.operator, step.node.name
        if operator not in OPERATORS:
            problems.setdefault(operator, []).append(name)
        # What depends on a node that failed can't be tried; other nodes are, so that all problems are named at once.
        elif all(given in values for given in step.inputs):
            try:
                values |= _convert_step(step, [values[given] for given in step.inputs], graph)
            except Exception as error:  # TensorFlow's errors share no base
                problems.setdefault(f"{operator} ({_describe_cause(error)})", []).append(name)
    if problems:
        raise _build_problems_error(problems)
    return {name: tf.identity(_get_tensor(values[name]), re.sub(r"\W", "_", name)) for name in graph.outputs}


def _convert_step(step: Step, inputs: list[_Value], graph: OnnxGraph) -> dict[str, _Value]:
    """Return the values of a node's outputs by name; constants where all of its inputs are."""
    operator = OPERATORS[step.node.operator]
    if all(value is None or isinstance(value, np.ndarray) for value in inputs):
        # Outside of the function that is traced, it is computed at once.
        with tf.init_scope():
            outputs = _apply(operator, step.node, inputs)
        return {name: np.asarray(value.get_first().numpy()) for name, value in zip(step.outputs, outputs, strict=False)}
    # Errors of a server name the node.
    with tf.name_scope(re.sub(r"[^\w.-]", "_", step.node.name).lstrip("_-") or "node"):
        outputs = _apply(operator, step.node, inputs)
    named = dict(zip(step.outputs, outputs, strict=False))
    for name, value in named.items():
        sizes = graph.sizes.get(name)
        if sizes is not None and len(sizes) == value.rank:
            value.restrict_shape(sizes)
    return dict(named)


def _apply(operator: Operator, node: GraphNode, inputs: Sequence[_Value]) -> list[GraphValue]:
    """Return the outputs of an operator, in the layout that it computes in."""
    if operator.layout in ("any", "axis") and (moved := _move_channels_last(operator, inputs)) is not None:
        if operator.layout == "axis":
            node = _replace_axis(node, len(moved[0].shape))
        return [GraphValue(last=output) for output in _make_tuple(operator.function(node, *moved))]
    if operator.layout == "last":
        image = inputs[0] if isinstance(inputs[0], GraphValue) else GraphValue(_get_tensor(inputs[0]))
        others = [_get_argument(operator, position, value) for position, value in enumerate(inputs[1:], 1)]
        return [GraphValue(last=output) for output in _make_tuple(operator.function(node, image.get_last(), *others))]
    arguments = [_get_argument(operator, position, value) for position, value in enumerate(inputs)]
    return [GraphValue(output) for output in _make_tuple(operator.function(node, *arguments))]


def _get_argument(operator: Operator, position: int, value: _Value) -> Any:
    """Return an input as the operator's function takes it: an array of a constant, or a tensor."""
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        return value if position in (*operator.fixed, *operator.folded) else tf.constant(value)
    if position not in operator.fixed and position not in operator.folded:
        return value.get_first()
    # TensorFlow finds the values of shapes where their sizes are known.
    static = tf.get_static_value(value.get_first())
    if static is None and position in operator.fixed:
        raise NotExpressible(f"input {position} is computed")
    return value.get_first() if static is None else np.asarray(static)


def _move_channels_last(operator: Operator, inputs: Sequence[_Value]) -> list[Any] | None:
    """Return all inputs with channels last, where one is so already and the others can be; else None."""
    ranks = [value.rank for value in inputs if isinstance(value, GraphValue) and value.is_last]
    if not ranks or ranks[0] < 3:
        return None
    # The first decides: tensors of different ranks are broadcast, which counts axes from the end.
    rank = ranks[0]
    moved: list[Any] = []
    for value in inputs:
        if value is None:
            moved.append(None)
        elif isinstance(value, GraphValue) and value.rank == rank:
            moved.append(value.get_last())
        elif isinstance(value, GraphValue):
            if value.rank or operator.layout == "axis":
                return None
            moved.append(value.get_first())
        elif value.ndim > rank or (operator.layout == "axis" and value.ndim < rank):
            return None
        elif value.ndim == 0:
            moved.append(tf.constant(value))
        else:
            # A constant costs nothing: it is moved here, once.
            aligned = value.reshape((1,) * (rank - value.ndim) + value.shape)
            moved.append(tf.constant(np.moveaxis(aligned, 1, -1)))
    return moved


def _replace_axis(node: GraphNode, rank: int) -> GraphNode:
    axis = node.get("axis", 0) % rank
    new = 0 if axis == 0 else rank - 1 if axis == 1 else axis - 1
    return GraphNode(node.operator, node.name, {**node.attributes, "axis": new}, node.outputs)


def _make_tuple(outputs: Tensor) -> tuple[Any, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _get_tensor(value: _Value) -> Any:
    return value.get_first() if isinstance(value, GraphValue) else tf.constant(value)


def _describe_cause(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return text if isinstance(error, NotExpressible) else f"{type(error).__name__}: {text}"


def _build_problems_error(problems: Mapping[str, Sequence[str]]) -> MLScaleError:
    counted = [
        f"{what}: {len(nodes)} node{'s' * (len(nodes) > 1)}, such as {nodes[0]}" for what, nodes in problems.items()
    ]
    is_int8 = any(what.partition(" ")[0] in _INT8 for what in problems)
    return MLScaleError(
        f"TensorFlow has no counterpart of {', '.join(problems)}",
        where="target=tfserving",
        why="; ".join(counted),
        fix="compressed=false, which exports the model as it was before int8"
        if is_int8
        else "target=onnx, which mlscale serve takes",
    )
