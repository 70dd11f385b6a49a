"""A servable whose encoder or graph was altered, and what it should be reported as."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mlscale.data.encoders.encoder import Encoder
from mlscale.export.graphs.encoder_graph import build_encoder_graph
from mlscale.export.onnx_export import export_onnx
from mlscale.export.served_module import build_served_module
from mlscale.task_types.registry import get_task_type
from mlscale.tasks import Classification


@dataclass(frozen=True)
class Fault:
    """An altered servable.

    Attributes:
        what: was altered, in words.
        places: one of which the named place must hold; empty for any.
        stored: the servable's encoder.
        content: its model.
    """

    what: str
    places: tuple[str, ...]
    stored: Encoder
    content: bytes


def export_encoder(encoder: Encoder) -> bytes:
    """Return the encoder's graph; of images that of a small model behind its normalisation."""
    if (built := build_encoder_graph(encoder)) is not None:
        return bytes(built[0].SerializeToString())
    channels = encoder.inputs[0].shape[0]
    model = torch.nn.Sequential(torch.nn.Conv2d(channels, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return export_onnx(build_served_module(Classification(2, model=model), get_task_type("classification"), encoder))


Plant = Callable[[random.Random, Encoder, bytes], Fault]
