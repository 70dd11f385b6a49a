"""Export a trained task as an ONNX graph that takes encoded samples: it includes the normalisation, for all clients."""

from __future__ import annotations

import warnings
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch

from mlscale.errors import MLScaleError
from mlscale.export.layer_bisect.fixed_batch import find_fixing_operator, trace_einsum_for_any_size
from mlscale.export.served_module import ServedModule, build_example_tensors

if TYPE_CHECKING:
    import onnx

OPSET = 20  # that of the encoders' graphs, which are joined to it
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
        with warnings.catch_warnings(), trace_einsum_for_any_size():
            # torch's exporter itself uses the class that it deprecates.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            # All inputs share the one name of the batch.
            warnings.filterwarnings("ignore", message=".*shares the same shape constraints.*", category=UserWarning)
            program = torch.onnx.export(
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
        raise _build_export_error(_format_root_cause(error)) from error
    assert program is not None
    proto: Any = program.model_proto
    # Where a batch of any size can't be traced, torch exports the example's size without a warning.
    sizes = [port.type.tensor_type.shape.dim[0] for port in (*proto.graph.input, *proto.graph.output)]
    if not all(size.dim_param for size in sizes):
        fixed = next(size.dim_value for size in sizes if not size.dim_param)
        why = f"batches are of {fixed} samples only"
        raise _build_export_error(f"{why}: {cause}" if (cause := find_fixing_operator(model, example)) else why)
    _forget_sources(proto)
    if proto.ByteSize() > _LIMIT:
        raise MLScaleError(
            f"the ONNX model would be {proto.ByteSize():,} bytes",
            where="model",
            why="one file holds 2 GiB at most",
            fix="mlscale predict <the run> input=<data>, which takes a checkpoint of any size; or a smaller model",
        )
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _forget_sources(proto: onnx.ModelProto) -> None:
    """Remove the source location of each node: it makes the file larger, and has paths of the exporting machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _build_export_error(why: str) -> MLScaleError:
    return MLScaleError(
        "the model can't be exported to ONNX",
        where="model",
        why=why,
        fix="keep to what torch.export can trace: no Python branches on values, no batch size as a number",
    )


def _format_root_cause(error: BaseException) -> str:
    """Return the innermost cause in one line; torch wraps it in a page of text."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(f"{type(error).__name__}: {lines[0] if lines else ''}", 300, placeholder=" …")
