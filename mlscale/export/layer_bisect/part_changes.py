"""What a part of a stored graph has otherwise than the same part of the trained model's own graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

_HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class PartChange:
    """A node that is not as torch exports it.

    Attributes:
        node: the node.
        sentence: what is different, in words.
        lowers_precision: true if it only rounds to fewer bits.
    """

    node: onnx.NodeProto
    sentence: str
    lowers_precision: bool = False


def find_part_change(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
    fresh: onnx.GraphProto,
    *,
    is_quantized: bool = False,
) -> PartChange | None:
    """Return the first node that is not as in `fresh`, the trained model's own graph; None where all are.

    Args:
        nodes: of the part, in the order of the graph.
        constants: those of the stored graph, by name.
        fresh: its nodes have the names that the stored graph's have.
        is_quantized: true for a part that a quantiser has made: it has nodes and constants of its own.
    """
    fresh_nodes = {node.name: node for node in fresh.node}
    fresh_makers = {output: node for node in fresh.node for output in node.output}
    fresh_constants = {item.name: item for item in fresh.initializer}
    inputs = {port.name for port in fresh.input}
    for node in nodes:
        counterpart = fresh_nodes.get(node.name)
        if counterpart is None and not is_quantized:
            # Another constant elsewhere may shift the numbers in the names of nodes; values that FX has keep theirs.
            counterpart = fresh_makers.get(node.output[0])
        if counterpart is None:
            change = None if is_quantized else _describe_added_node(node)
        elif node.op_type != counterpart.op_type:
            change = PartChange(node, f"the trained model has {counterpart.op_type} in its place")
        else:
            change = _find_changed_attribute(node, counterpart)
            change = change or _find_changed_constant(node, counterpart, constants, fresh_constants)
            # A quantiser puts its own nodes between two.
            if change is None and not is_quantized:
                change = _find_changed_input(node, counterpart, {*constants, *fresh_constants, *inputs})
        if change is not None:
            return change
    return None


def _describe_added_node(node: onnx.NodeProto) -> PartChange:
    from onnx import TensorProto, helper

    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Cast" and (name := TensorProto.DataType.Name(attributes["to"]).lower()) in _HALVES:
        return PartChange(node, f"it rounds to {name}, the trained model does not", lowers_precision=True)
    return PartChange(node, "the trained model has no such node")


def _find_changed_attribute(node: onnx.NodeProto, fresh: onnx.NodeProto) -> PartChange | None:
    stored, expected = ({item.name: item for item in source.attribute} for source in (node, fresh))
    for name in sorted({*stored, *expected}):
        if stored.get(name) != expected.get(name):
            values = [_format_attribute(attributes.get(name)) for attributes in (stored, expected)]
            return PartChange(node, f"{name} is {values[0]}, {values[1]} in the trained model")
    return None


def _format_attribute(attribute: onnx.AttributeProto | None) -> str:
    from onnx import helper

    if attribute is None:
        return "not set"
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:60]


def _find_changed_constant(
    node: onnx.NodeProto,
    fresh: onnx.NodeProto,
    constants: Mapping[str, onnx.TensorProto],
    fresh_constants: Mapping[str, onnx.TensorProto],
) -> PartChange | None:
    from onnx import numpy_helper

    # By position: equal constants of a graph are stored once, under the name of one of them.
    for stored_name, fresh_name in zip(node.input, fresh.input, strict=False):
        if stored_name not in constants or fresh_name not in fresh_constants:
            continue
        stored, expected = constants[stored_name], fresh_constants[fresh_name]
        if stored.raw_data == expected.raw_data and stored.data_type == expected.data_type:
            continue
        sentence, is_rounded = _compare_constants(numpy_helper.to_array(stored), numpy_helper.to_array(expected))
        if sentence:
            return PartChange(node, f"its constant {fresh_name} {sentence}", is_rounded)
    return None


def _compare_constants(stored: NDArray[Any], expected: NDArray[Any]) -> tuple[str, bool]:
    """Return in words what differs, '' for nothing, and whether it is rounding to half precision alone."""
    import ml_dtypes

    if stored.shape != expected.shape:
        return f"is of shape {stored.shape}, {expected.shape} in the trained model", False
    values, wanted = stored.astype(np.float64), expected.astype(np.float64)
    if np.array_equal(values, wanted, equal_nan=True):
        return "", False
    if expected.dtype == np.float32:
        for name, half in zip(_HALVES, (np.float16, ml_dtypes.bfloat16), strict=True):
            with np.errstate(over="ignore"):
                if np.array_equal(values, expected.astype(half).astype(np.float64), equal_nan=True):
                    return f"is rounded to {name}", True
    if stored.size == 1:
        return f"is {values.item():.6g}, {wanted.item():.6g} in the trained model", False
    where = f"in {int((values != wanted).sum()):,} of {stored.size:,} numbers"
    largest = float(np.abs(values - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float32).tiny))
    return f"differs from the trained model's {where}, by up to {largest:.2g} of the largest", False


def _find_changed_input(node: onnx.NodeProto, fresh: onnx.NodeProto, ignored: set[str]) -> PartChange | None:
    for stored_name, fresh_name in zip(node.input, fresh.input, strict=False):
        if stored_name != fresh_name and not {stored_name, fresh_name} & ignored:
            return PartChange(node, f"it reads {stored_name}, {fresh_name} in the trained model")
    return None
