"""Half precision: half the size, nearly the same outputs, the same inputs and outputs, and valid ONNX."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from mlscale.data.encoders.encoder import TensorSpec
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.errors import MLScaleError
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.half_precision import convert_to_half
from mlscale.tasks.models.gpt import GPT
from mlscale.tasks.models.resnet import ResNet
from mlscale.tasks.models.tabular import TabularNet
from mlscale.tasks.models.unet import UNet
from mlscale.tasks.models.vit import ViT


def export(model: torch.nn.Module, example: torch.Tensor) -> bytes:
    torch.manual_seed(0)
    with torch.no_grad():
        # Fresh weights of the last layers are zeros in some, and zeros prove nothing.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    program = torch.onnx.export(
        model.eval(), (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["input"], output_names=["logits"], external_data=False, verbose=False, opset_version=20,
    )  # fmt: skip
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.parametrize(
    ("model", "example"),
    [
        (ResNet(3, 10), torch.randn(2, 3, 16, 16)),
        (ViT(3, 10, 16, 16), torch.randn(2, 3, 16, 16)),
        (UNet(3, 4), torch.randn(2, 3, 16, 16)),
        (TabularNet(12, 3), torch.randn(2, 12)),
        (GPT(257, 16), torch.randint(0, 257, (2, 16))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_outputs_are_near_and_the_file_is_half(model: torch.nn.Module, example: torch.Tensor) -> None:
    content = export(model, example)
    encoder = TensorEncoder((TensorSpec("input", str(example.numpy().dtype), tuple(example.shape[1:])),))
    half = convert_to_half(content, encoder)
    assert len(half) < 0.7 * len(content)
    weights = [tensor for tensor in onnx.load_from_string(half).graph.initializer if len(tensor.dims) > 1]
    assert sum(weight.data_type == onnx.TensorProto.FLOAT16 for weight in weights) > len(weights) / 2
    before, after = OnnxEngine(content), OnnxEngine(half)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    for rows in (1, 3):
        given = {"input": np.resize(example.numpy(), (rows, *example.shape[1:]))}
        wanted, computed = before.compute(given)["logits"], after.compute(given)["logits"]
        error = np.abs(computed - wanted).max() / np.abs(wanted).max()
        assert 0 < error < 5e-3
    assert convert_to_half(content, encoder) == half


def test_what_is_no_model_is_refused() -> None:
    encoder = TensorEncoder((TensorSpec("input", "float32", (2,)),))
    with pytest.raises(MLScaleError, match="can't be converted to half precision"):
        convert_to_half(b"not a model", encoder)
