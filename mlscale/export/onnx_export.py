"""Export a trained task as an ONNX graph that takes raw samples: it includes the normalisation, for all clients."""

from __future__ import annotations

import warnings
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mlscale.errors import MLScaleError
from mlscale.export.validation_samples import SampleFormat

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "input", "logits"
_EXAMPLES = 2
"""Samples of the example batch: torch.export treats a size of 1 as a constant."""
_LIMIT = 2**31 - 1
"""Largest size of a protobuf message, bytes."""


class NormalisedTask(nn.Module):
    """A task behind its normalisation, (raw - mean) / std, computed as in `data.images.image_stream`, in float32.

    Args:
        task: maps samples, as in training, to logits: (n, …) to (n, classes).
        mean: of each channel, in the units of the raw sample; empty for none.
        std: of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, task: nn.Module, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.task = task
        self.normalises = bool(mean)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])

    def forward(self, raw: Tensor) -> Tensor:
        """Return logits, float32 (n, classes), for raw samples (n, …)."""
        x = (raw.float() - self.mean) / self.std if self.normalises else raw
        logits: Tensor = self.task(x)
        return logits.float()


def build_normalised_task(task: nn.Module, given: SampleFormat) -> NormalisedTask:
    """Return the task behind its preprocessing, on the CPU, for inference, its lazy layers initialised.

    Raises:
        MLScaleError: its output is not logits.
    """
    model = NormalisedTask(task, given.mean, given.std).cpu().float().eval()
    # The pass also gives lazy layers their shapes, which tracing needs.
    with torch.no_grad():
        logits: Any = model(_make_example(given))
    if logits.ndim != 2:
        raise MLScaleError(
            f"the task gives {tuple(logits.shape)} for {_EXAMPLES} samples",
            where="task",
            why="a servable classifies: its model gives (n, classes)",
            fix="return logits (n, classes) from the forward of the task",
        )
    return model


def export_onnx(model: NormalisedTask, given: SampleFormat) -> bytes:
    """Return the serialised ONNX model: input `input`, output `logits`, any batch size. Equal models give equal bytes.

    Raises:
        MLScaleError: torch can't express the model in ONNX, its batch size is built in, or it is over 2 GiB.
    """
    dynamic = ({0: torch.export.Dim("batch")},)
    try:
        with warnings.catch_warnings():
            # torch's exporter itself uses the class that it deprecates.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            program = torch.onnx.export(
                model,
                (_make_example(given),),
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[INPUT],
                output_names=[OUTPUT],
                # Weights within the file: an engine that loads from memory opens no other one.
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise _build_export_error(_format_root_cause(error)) from error
    assert program is not None
    proto: Any = program.model_proto
    # Where a batch of any size can't be traced, torch exports the example's size without a warning.
    sizes = [port.type.tensor_type.shape.dim[0] for port in (proto.graph.input[0], proto.graph.output[0])]
    if not all(size.dim_param for size in sizes):
        raise _build_export_error(f"batches are of {sizes[0].dim_value or sizes[1].dim_value} samples only")
    _forget_sources(proto)
    if proto.ByteSize() > _LIMIT:
        raise MLScaleError(
            f"the ONNX model would be {proto.ByteSize():,} bytes",
            where="model",
            why="one file holds 2 GiB at most",
            fix="a smaller model; mlscale predict takes the checkpoint itself, of any size",
        )
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _make_example(given: SampleFormat) -> Tensor:
    # Zeros are valid values of every dtype; for token numbers, of every vocabulary.
    return torch.zeros(_EXAMPLES, *given.shape, dtype=getattr(torch, given.dtype))


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
