"""Networks of both kinds, trained for no time at all, and what they are exported to."""

import pytest
import torch
from torch import Tensor, nn

from mlscale.data import Digits
from mlscale.export.onnx_export import export_onnx
from mlscale.export.served_module import build_served_module
from mlscale.export.validation_samples import describe_sample_format
from mlscale.task_types.registry import get_task_type
from mlscale.tasks import Classification, ResNet
from tests.operators import operators_parsed_once

__all__ = ["operators_parsed_once"]


class Attention(nn.Module):
    """Rows of the image as tokens, one block of attention, a mean: products of activations among those with weights."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.squeeze(1))
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        weights = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, -1)
        x = x + self.out(weights @ v)
        x = x + self.mlp(self.norms[1](x))
        logits: Tensor = self.head(x.mean(1))
        return logits


def classifier(model: nn.Module) -> Classification:
    return Classification(10, model=model).eval()


def export_classifier(task: Classification, digits: Digits) -> bytes:
    encoder = describe_sample_format(digits).encoder
    return export_onnx(build_served_module(task, get_task_type("classification"), encoder))


@pytest.fixture(scope="session")
def digits(bundled: object) -> Digits:
    data = Digits(batch_size=50, root=bundled, workers=0)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture(scope="session")
def convolutions(digits: Digits) -> bytes:
    torch.manual_seed(0)
    return export_classifier(classifier(ResNet(1, 10, widths=(8, 16))), digits)


@pytest.fixture(scope="session")
def attention(digits: Digits) -> bytes:
    torch.manual_seed(0)
    return export_classifier(classifier(Attention()), digits)
