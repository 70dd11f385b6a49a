"""Models of the built-in and of other kinds, and their exports, each made once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from mlscale.compress.quantize import quantize_model
from mlscale.data.encoders.encoder import INPUT
from mlscale.tasks import GPT, ResNet, TabularNet, TextCNN, UNet, ViT

_SAMPLES = 32


@dataclass(frozen=True)
class Case:
    """A trained model and its exports.

    Attributes:
        model: in evaluation mode.
        samples: of its input, (n, …).
        fp32: as ONNX.
        export_s: CPU time of the export.
    """

    model: nn.Module
    samples: NDArray[Any]
    fp32: bytes
    export_s: float

    def quantize(self, method: Any) -> bytes:
        return quantize_model(self.fp32, method, {INPUT: self.samples})


def draw_images(size: int, channels: int = 3) -> NDArray[Any]:
    return np.random.default_rng(0).standard_normal((_SAMPLES, channels, size, size), np.float32)


def draw_tokens(length: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(1, 256, (_SAMPLES, length))


MODELS: dict[str, Callable[[], tuple[nn.Module, NDArray[Any]]]] = {
    "resnet": lambda: (ResNet(3, 10, widths=(8, 16)), draw_images(16)),
    "resnet18 (torchvision)": lambda: (torchvision.models.resnet18(num_classes=10), draw_images(64)),
    "mobilenet (torchvision)": lambda: (torchvision.models.mobilenet_v3_small(num_classes=10), draw_images(64)),
    "unet": lambda: (UNet(3, 4, widths=(8, 16, 32)), draw_images(18)),
    "vit": lambda: (ViT(3, 10, 16, 16, patch=4, dim=32, depth=2), draw_images(16)),
    "vit (timm)": lambda: (timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3), draw_images(64)),
    "text cnn": lambda: (TextCNN(257, 5, width=16, filters=16), draw_tokens(40)),
    "gpt": lambda: (GPT(256, 32, width=32, layers=2, ngrams=(2, 3), buckets=512), draw_tokens(32)),
    "table net": lambda: (TabularNet(12, 3), np.random.default_rng(0).standard_normal((_SAMPLES, 12), np.float32)),
}


@cache
def build_case(name: str) -> Case:
    """Return a model whose weights and statistics are not those that it starts with, and its export."""
    torch.manual_seed(0)
    model, samples = MODELS[name]()
    perturb_weights(model, samples)
    export_model(model, samples)
    start = time.process_time()
    content = export_model(model, samples)
    return Case(model, samples, content, time.process_time() - start)


def perturb_weights(model: nn.Module, samples: NDArray[Any]) -> None:
    with torch.no_grad():
        # A layer that starts with zeros, or with ones, hides what is wrong with it.
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.train()
        for _ in range(3):
            model(torch.from_numpy(samples))
    model.eval()


def export_model(model: nn.Module, samples: NDArray[Any]) -> bytes:
    """Return the model as `mlscale export` makes it: named ports, a batch of any size, no sources."""
    program = torch.onnx.export(
        model,
        (torch.from_numpy(samples[:2]),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["input"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    content: bytes = proto.SerializeToString(deterministic=True)
    return content
