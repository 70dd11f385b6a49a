"""The ONNX graph: raw samples in, the trained model's logits out, whatever the batch."""

import inspect
import re
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mlscale.data import Digits
from mlscale.data.encoders.encoder import TensorSpec
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.errors import MLScaleError
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.measure_export import ExportMeasurement, describe_served_model, export_and_measure
from mlscale.export.onnx_export import export_onnx
from mlscale.export.served_module import (
    ServedModule,
    build_served_module,
    compute_plain_outputs,
)
from mlscale.export.validation_samples import describe_sample_format, iterate_validation_batches
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.tensor_type import PlainClassification, TensorType
from mlscale.tasks import MLP, Classification
from tests.unit.export.conftest import build_module, network


def test_a_forward_that_takes_what_steps_make_of_a_batch_is_explained() -> None:
    with pytest.raises(
        MLScaleError, match=r"Linear.forward does not take a batch of the data, \(3, 1, 28, 28\)"
    ) as error:
        compute_plain_outputs(nn.Linear(784, 2), TensorType(), {"input": torch.zeros(3, 1, 28, 28)})
    assert "mat1 and mat2" in error.value.why
    assert "x.view(x.size(0), -1), into forward" in error.value.fix


def test_normalisation_is_that_of_the_data_to_the_bit(digits: Digits) -> None:
    normalise = ServedModule(nn.Flatten(), TensorType(), digits.encoder())
    for samples in iterate_validation_batches(digits):
        assert torch.equal(normalise(torch.from_numpy(samples.raw))["output"], samples.x.flatten(1))


@pytest.mark.parametrize("count", [1, 2, 3, 32, 50])
def test_raw_pixels_give_the_trained_models_logits(
    measured: ExportMeasurement, task: Classification, digits: Digits, count: int
) -> None:
    samples = next(iterate_validation_batches(digits, limit=count))
    with torch.no_grad():
        expected = task(samples.x).numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(OnnxEngine(measured.model).run(samples.raw), expected, rtol=0, atol=1e-6)


def test_the_graph_takes_bytes_in_batches_of_any_size_and_reports_nothing_of_where_it_was_made(
    measured: ExportMeasurement,
) -> None:
    graph = onnx.load_from_string(measured.model).graph
    taken = graph.input[0].type.tensor_type
    assert taken.elem_type == onnx.TensorProto.UINT8
    assert [size.dim_param or size.dim_value for size in taken.shape.dim] == ["batch", 1, 8, 8]
    assert not [node for node in graph.node if node.metadata_props or node.doc_string]
    assert b".py" not in measured.model


def test_the_same_weights_give_the_same_bytes(measured: ExportMeasurement, digits: Digits) -> None:
    encoder = describe_sample_format(digits).encoder
    served = build_served_module(network(), get_task_type("classification"), encoder)
    assert export_onnx(served) == measured.model


def test_rounding_that_no_layer_exceeds_is_reported(measured: ExportMeasurement) -> None:
    # Asked where a bound on the outputs is not met, which rounding alone can exceed.
    assert measured.find_layer().startswith("no layer by itself differs beyond rounding: ")


def test_layers_without_a_shape_get_one() -> None:
    encoder = TensorEncoder.from_shape((3, 4, 4), "float32")
    task = Classification(5, model=MLP(None, 5, hidden=(7,)))
    model = build_served_module(task, get_task_type("classification"), encoder)
    x = torch.randn(3, 3, 4, 4)
    with torch.no_grad():
        expected = model(x)["logits"].numpy()
    np.testing.assert_allclose(OnnxEngine(export_onnx(model)).run(x.numpy()), expected, rtol=0, atol=1e-6)


class Branching(nn.Module):
    """Decides by a value: nothing that a graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Unknown(nn.Module):
    """Has an operator that ONNX lacks."""

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.eigvalsh(x[:, 0])
        return values


class Packed(nn.Module):
    """Packs sequences, which is traced by no exporter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(2, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.full((len(x),), 2)
        packed = nn.utils.rnn.pack_padded_sequence(x[:, 0], lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0].flatten(1)


class Measured(Packed):
    """Packs as many steps as a sample has that are not zero."""

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_sequence([row[row.sum(1) != 0] for row in x[:, 0]], enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0].flatten(1)


class Logarithm(nn.Module):
    """Takes no zeros."""

    def forward(self, x: Tensor) -> Tensor:
        if (x == 0).any():
            raise ValueError("0 has no logarithm")
        return x.flatten(1).log()


@pytest.mark.parametrize(("model", "fix"), [(Measured, "give the padded sequence"), (Logarithm, "forward take zeros")])
def test_a_model_that_fails_for_zeros_is_named_by_its_line(model: Any, fix: str) -> None:
    with pytest.raises(MLScaleError, match="fails for a batch of zeros") as caught:
        build_module(model(), (1, 2, 2))
    assert re.fullmatch(r".*test_onnx_export\.py:\d+, in forward", caught.value.where)
    assert fix in caught.value.fix


class BuiltIn(nn.Module):
    """Works for the example's batch size alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + torch.arange(8.0).reshape(2, 4)


class Looping(nn.Module):
    """Takes the samples of its batch one by one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row.flatten() for row in x])


@pytest.mark.parametrize(
    ("model", "cause", "fix"),
    [
        (Branching, "Python code decides by the values of a tensor", "torch.export can trace"),
        (Unknown, "ONNX has no operator for aten._linalg_eigh", "onnx.ai/onnx/operators"),
        (Packed, "a packed sequence has another length for each batch", "give the padded sequence to the layer"),
        (BuiltIn, "a number in forward, such as len(x), or a loop over the batch makes batches of 2", "torch.export"),
        (Looping, "or a loop over the batch makes batches of 2 samples of all", "or loops over samples"),
    ],
)
def test_what_a_graph_cannot_hold_is_reported(
    model: Any, cause: str, fix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MLScaleError, match="can't be exported to ONNX") as caught:
        export_onnx(build_module(model(), (1, 2, 2)))
    assert cause in caught.value.why
    assert fix in caught.value.fix
    assert "\n" not in caught.value.why
    if model is not BuiltIn:  # whose parts all have the batch; the line is the user's own
        source = inspect.getsource(model.forward).strip()
        place, _, line = caught.value.where.partition(", in forward: ")
        assert re.fullmatch(r".*test_onnx_export\.py:\d+", place)
        assert line
        assert line in source
    # torch's warnings and graphs are not printed between ours.
    assert capfd.readouterr() == ("", "")


class Several(nn.Module):
    """Two inputs by name, and two outputs."""

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": left + right, "largest": torch.maximum(left, right).amax(1)}


def test_several_inputs_and_outputs() -> None:
    specs = (TensorSpec("left", "float32", (3,)), TensorSpec("right", "float32", (3,)))
    served = build_served_module(Several(), TensorType(), TensorEncoder(specs))
    engine = OnnxEngine(export_onnx(served))
    assert [port.name for port in (*engine.inputs, *engine.outputs)] == ["left", "right", "sum", "largest"]
    left, right = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    outputs = engine.compute({"right": right, "left": left})
    np.testing.assert_array_equal(outputs["sum"], left + right)
    np.testing.assert_array_equal(outputs["largest"], np.maximum(left, right).max(1))


class Biased(nn.Module):
    """Attention with a learned bias, expanded to the batch, as Swin has it."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.project = nn.Parameter(torch.randn(1, 2, 4, 4)), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.project(x).view(-1, 4, 2, 8).transpose(1, 2)
        mask = self.bias.expand(x.shape[0], -1, -1, -1)
        attended = nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)
        return attended.transpose(1, 2).contiguous().reshape(-1, 64)


def test_attention_with_a_learned_bias_is_exported() -> None:
    served = build_served_module(Biased(), TensorType(), TensorEncoder((TensorSpec("x", "float32", (64,)),)))
    x = torch.randn(5, 64)
    with torch.no_grad():
        expected = served.task(x).numpy()
    (given,) = OnnxEngine(export_onnx(served)).compute({"x": x.numpy()}).values()
    np.testing.assert_allclose(given, expected, atol=1e-5)


class SeldomNoisy(nn.Module):
    """Adds noise to so few batches that two passes show none."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + (torch.rand(1) < 1e-9).float()).flatten(1)


def test_a_forward_that_is_seldom_random_is_refused_by_its_graph() -> None:
    with pytest.raises(MLScaleError) as caught:
        export_onnx(build_module(SeldomNoisy(), (1, 2, 2)))
    assert caught.value.why == "its forward is random: the graph has RandomUniformLike"


def test_the_export_of_a_model_that_mixes_samples_is_refused(digits: Digits) -> None:
    task = Plain(10)
    task.layer = nn.Sequential(nn.BatchNorm1d(64, track_running_stats=False), task.layer)
    with pytest.raises(MLScaleError, match="depends on the other samples of its batch"):
        export_and_measure(task, digits)


def test_an_input_by_name_that_a_forward_does_not_take_is_explained() -> None:
    with pytest.raises(MLScaleError, match="does not take a batch of the data") as caught:
        compute_plain_outputs(nn.Flatten(), TensorType(), {"left": torch.zeros(2, 3), "right": torch.zeros(2, 3)})
    assert caught.value.fix.startswith("define forward(self, left, right)")


class Whole(nn.Module):
    """One number for the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean()


def test_a_model_that_answers_no_single_sample_is_refused() -> None:
    with pytest.raises(MLScaleError, match=r"the output 'output' is \(\) for 2 samples"):
        build_module(Whole(), (1, 2, 2))


class Plain(LightningModule):
    """States no type."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.layer: nn.Module = nn.Linear(64, columns)

    def forward(self, x: Tensor) -> Tensor:
        numbers: Tensor = self.layer(x.flatten(1))
        return numbers


class Stated(Plain):
    """States a type, and has no `predict_step` of its own."""

    def __init__(self, kind: str, columns: int) -> None:
        super().__init__(columns)
        self.kind = kind


class Unpacking(Stated):
    """Takes batches as Lightning's own prediction loop passes them."""

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, _ = batch
        numbers: Tensor = self(x)
        return numbers


@pytest.mark.parametrize(
    ("kind", "columns", "output"),
    [
        ("classification", 10, "logits"),
        ("regression", 1, "value"),
        ("multilabel", 4, "logits"),
        ("tensors", 10, "output"),
    ],
)
def test_a_stated_type_needs_no_predict_step(digits: Digits, kind: str, columns: int, output: str) -> None:
    task_type, _, served = describe_served_model(Stated(kind, columns), digits)
    outputs = served(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert (task_type.name, {name: tuple(value.shape) for name, value in outputs.items()}) == (
        kind,
        {output: (2, columns)},
    )


def test_a_predict_step_that_takes_no_batch_by_name_is_explained(digits: Digits) -> None:
    with pytest.raises(MLScaleError, match=r"Unpacking\.predict_step does not give the outputs") as caught:
        describe_served_model(Unpacking("classification", 10), digits)
    assert caught.value.fix.startswith("leave predict_step out of ")


class Labelled(LightningDataModule):
    """Images with labels of three classes, whose number it does not state."""

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(6, 64), torch.arange(6) % 3), batch_size=4)


@pytest.mark.parametrize(("columns", "is_classification"), [(3, True), (64, False), (2, False)])
def test_classes_are_counted_in_the_labels(columns: int, is_classification: bool) -> None:
    task_type, *_ = describe_served_model(Plain(columns), Labelled())
    assert isinstance(task_type, PlainClassification) == is_classification


@pytest.mark.parametrize(("columns", "output"), [(10, "logits"), (512, "output")])
def test_features_are_no_classes(digits: Digits, columns: int, output: str) -> None:
    task_type, given, served = describe_served_model(Plain(columns), digits)
    assert isinstance(task_type, PlainClassification) == (output == "logits")
    assert [*served(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))] == [output]
    assert given.names.labels == (tuple(map(str, range(10))) if output == "logits" else ())
