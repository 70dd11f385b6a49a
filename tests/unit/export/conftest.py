"""Digits, a small network with random weights, and what is exported of it once: an export takes seconds."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mlscale.data import Digits
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.export.measure_export import ExportMeasurement, export_and_measure
from mlscale.export.servable import Servable
from mlscale.export.served_module import ServedModule, build_served_module
from mlscale.export.write_servable import build_servable_document, write_servable
from mlscale.task_types.tensor_type import TensorType
from mlscale.tasks import Classification, ResNet
from tests.operators import operators_parsed_once

__all__ = ["operators_parsed_once"]


@pytest.fixture(scope="session")
def digits(bundled: Path) -> Digits:
    data = Digits(batch_size=50, root=bundled, workers=0)
    data.prepare_data()
    data.setup("validate")
    return data


def network() -> Classification:
    """A residual network of 5,000 parameters, its batch normalisation away from where it starts."""
    torch.manual_seed(0)
    task = Classification(10, model=ResNet(1, 10, widths=(8, 16)))
    task.model.train()
    with torch.no_grad():
        for _ in range(3):
            task(2 * torch.randn(64, 1, 8, 8) + 1)
    return task.eval()


@pytest.fixture(scope="session")
def task() -> Classification:
    return network()


@pytest.fixture(scope="session")
def measured(task: Classification, digits: Digits) -> ExportMeasurement:
    return export_and_measure(task, digits)


def save(measured: ExportMeasurement, folder: Path, *, replace: bool = False, warmup: bool = True) -> Servable:
    """Write the servable of an exported model."""
    about = build_servable_document(
        measured,
        name="digits",
        run={"id": "1n8q4m7zk3xp", "folder": "digits-1n8q4m7zk3xp", "config_hash": "0" * 64},
        checkpoint={"name": "best.ckpt", "step": 3},
        data_version="v",
        licences={"data": "CC-BY-4.0", "model": None},
    )
    return write_servable(
        folder,
        model=measured.model,
        parity=measured.parity.as_dict(),
        reference=measured.reference.finish(split="val", data_version="v"),
        document=about,
        warmup=measured.warmup if warmup else (),
        replace=replace,
    )


@pytest.fixture
def servable(measured: ExportMeasurement, tmp_path: Path) -> Servable:
    return save(measured, tmp_path / "servable")


def build_module(model: nn.Module, shape: tuple[int, ...], dtype: str = "float32") -> ServedModule:
    return build_served_module(model, TensorType(), TensorEncoder.from_shape(shape, dtype))
