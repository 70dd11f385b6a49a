"""Export a trained task as an ONNX graph that takes encoded samples: it includes the normalisation, for all clients."""

from __future__ import annotations

import re
import traceback
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import PackedSequence

from mlscale.culprit import find_innermost_call, find_user_line, quote_line
from mlscale.errors import MLScaleError
from mlscale.export.served_module import NO_RANDOM, UNPACKED, ServedModule, build_example_tensors, trace_quietly

if TYPE_CHECKING:
    import onnx

OPSET = 20  # that of the encoders' graphs, which are joined to it
_TRACEABLE = "keep to what torch.export can trace: no branches on values or loops over samples, x.shape[0] for len(x)"
_LIMIT = 2**31 - 1
"""Largest size of a protobuf message, bytes."""


def export_onnx(model: ServedModule) -> bytes:
    """Return the serialised ONNX model: inputs and outputs as the module's, any batch size. Equal models give equal
    bytes.

    Raises:
        MLScaleError: torch can't express the model in ONNX, its batch size is built in, or it is over 2 GiB.
    """
    batch, example = torch.export.Dim("batch"), build_example_tensors(model.specs)
    with torch.no_grad():
        names = list(model(*example))
    try:
        with trace_quietly():
            program: Any = torch.onnx.export(
                model,
                example,
                dynamo=True,
                dynamic_shapes=(tuple({0: batch} for _ in example),),
                opset_version=OPSET,
                input_names=[spec.name for spec in model.specs],
                output_names=names,
                # Weights within the file: an engine that loads from memory opens no other one.
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise _explain_trace_error(error) from error
    proto = program.model_proto
    # Where a batch of any size can't be traced, torch exports the example's size without a warning.
    sizes = [port.type.tensor_type.shape.dim[0] for port in (*proto.graph.input, *proto.graph.output)]
    if not all(size.dim_param for size in sizes):
        fixed = next(size.dim_value for size in sizes if not size.dim_param)
        # Such as the loop that takes the batch apart.
        parts = (node for node in program.exported_program.graph.nodes if _is_without_batch(node, fixed))
        why = f"a number in forward, such as len(x), or a loop over the batch makes batches of {fixed} samples of all"
        raise _build_export_error(why, quote_line(_find_call(next(parts, None))))
    nodes = (node.op_type for graph in (proto.graph, *proto.functions) for node in graph.node)
    # Two passes over a few samples do not show what is drawn seldom.
    if random := sorted({kind for kind in nodes if kind.startswith("Random") or kind in ("Bernoulli", "Multinomial")}):
        raise MLScaleError(
            "the model can't be exported to ONNX",
            where="model",
            why=f"its forward is random: the graph has {', '.join(random)}",
            fix=NO_RANDOM,
        )
    _forget_sources(proto)
    if proto.ByteSize() > _LIMIT:
        raise MLScaleError(
            f"the ONNX model would be {proto.ByteSize():,} bytes",
            where="model",
            why="one file holds 2 GiB at most",
            fix="mlscale predict <the run> input=<data>, which takes a checkpoint of any size; or a smaller model",
        )
    return bytes(proto.SerializeToString(deterministic=True))


def _forget_sources(proto: onnx.ModelProto) -> None:
    """Remove the source location of each node: it makes the file larger, and has paths of the exporting machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _build_export_error(why: str, where: str = "", fix: str = _TRACEABLE) -> MLScaleError:
    return MLScaleError("the model can't be exported to ONNX", where=where or "model", why=why, fix=fix)


def _explain_trace_error(error: BaseException) -> MLScaleError:
    """Return the innermost cause in one line, with the user's line; torch wraps it in a page of text."""
    while error.__cause__ is not None:
        error = error.__cause__
    # A node that ONNX has no operator for is met after the trace: torch's translator has its origin.
    nodes = (frame.f_locals.get("node") for frame, _ in traceback.walk_tb(error.__traceback__))
    node = next((node for node in nodes if isinstance(node, torch.fx.Node)), None)
    where = quote_line(find_user_line(error) or _find_call(node))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why, fix = shorten(f"{type(error).__name__}: {lines[0] if lines else ''}", 300, placeholder=" …"), _TRACEABLE
    values = [value for frame, _ in traceback.walk_tb(error.__traceback__) for value in frame.f_locals.values()]
    if any(isinstance(value, PackedSequence) for value in values) or "pack_padded_sequence" in where:
        why, fix = "a packed sequence has another length for each batch, which a graph can't", UNPACKED
    elif type(error).__name__ == "GuardOnDataDependentSymNode":
        why = "Python code decides by the values of a tensor, which a graph can't"
    elif operator := re.match(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(error)):
        why, fix = f"ONNX has no operator for {operator[1]}", "compute it by others: onnx.ai/onnx/operators lists them"
    return _build_export_error(why, where, fix)


def _is_without_batch(node: torch.fx.Node, size: int) -> bool:
    """Return whether a node computes something whose first dimension is not the batch."""
    return node.op == "call_function" and getattr(node.meta.get("val"), "shape", ())[:1] != (size,)


def _find_call(node: torch.fx.Node | None) -> str:
    """Return the place in the user's code that a node is from; "" for none."""
    trace = str(node.meta.get("stack_trace")) if node is not None else ""
    calls = [(file, int(line), name) for file, line, name in re.findall(r'File "(.+)", line (\d+), in (\S+)', trace)]
    return find_innermost_call(reversed(calls))
