"""A small servable of each task type and kind of input, with random weights, and raw samples of every awkward form.

Each is exported once in a test run, by the fixture `get_task_servable`: a conftest.py, or a module of tests, imports it
and `operators_parsed_once` (`__all__`). `build_torch_model` does without an export where the trained side is enough.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder, TensorSpec
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.graphs.encoder_graph import prepend_encoder_graph
from mlscale.export.measure_export import ExportMeasurement
from mlscale.export.onnx_export import export_onnx
from mlscale.export.parity import Parity
from mlscale.export.reference_builder import ReferenceBuilder
from mlscale.export.servable import Servable, load
from mlscale.export.torch_predictor import TorchModel
from mlscale.export.validation_samples import SampleFormat
from mlscale.export.write_servable import build_servable_document, write_servable
from mlscale.task_types.registry import resolve_task_type
from mlscale.task_types.task_type import AnswerNames, TargetColumn
from mlscale.task_types.tensor_type import TensorType
from mlscale.tasks import Classification, Language, Multilabel, Regression, Segmentation
from tests.conftest import made_once
from tests.operators import operators_parsed_once
from tests.unit.data.encoders.random_tables import draw_row, fit_random

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
__all__ = ["get_task_servable", "operators_parsed_once"]
NAMES = AnswerNames(("adelie", "chinstrap", "gentoo"))
DOCUMENT_BYTES = 16


@dataclass(frozen=True)
class TaskExample:
    """A trained task with random weights, and what it is asked.

    Attributes:
        task: for inference.
        encoder: of its samples.
        names: of classes and targets.
        draw: returns n raw samples by a generator, none of which is bad.
    """

    task: LightningModule
    encoder: Encoder
    names: AnswerNames
    draw: Callable[[np.random.Generator, int], list[Any]]


class PlainOutputs(LightningModule):
    """A user's module that states no kind, with two inputs and an output that is no class."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.tanh(self.layer(torch.cat([left, right], 1)))


class MeanOfTokens(nn.Module):
    """The mean of the embeddings of tokens, and a layer on it."""

    def __init__(self, tokens: int, outputs: int) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(tokens, 6), nn.Linear(6, outputs)

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = self.layer(self.embedding(x).mean(1))
        return mean


def draw_images(rng: np.random.Generator, count: int) -> list[bytes]:
    """Image files of five formats and odd sizes, some of them turned, grey or with alpha."""
    contents = []
    for number in range(count):
        width, height = rng.integers(5, 70, 2).tolist()
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        mode, file, exif = ("RGB", "L", "RGBA")[int(rng.integers(3))], io.BytesIO(), Image.Exif()
        form = FORMATS[number % len(FORMATS)]
        exif[0x0112] = int(rng.integers(1, 9))
        image = Image.fromarray(pixels).convert("RGB" if form == "JPEG" and mode == "RGBA" else mode)
        image.save(file, form, exif=exif)
        contents.append(file.getvalue())
    return contents


def draw_texts(rng: np.random.Generator, count: int) -> list[str | bytes]:
    """Texts with emoji, NUL and bytes that are not UTF-8, shorter and longer than the model takes."""
    parts = ["🐧🇮🇸", "é e\u0301", "a\0b", b"\xff\xfe\x80", b"\xc3", "日本", "penguin " * 9, "\udcff", "\u202e", " "]
    texts: list[str | bytes] = []
    for number in range(count):
        chosen = [parts[index] for index in rng.integers(0, len(parts), 3)] + ([b"\0"] if number % 4 == 0 else [])
        content = b"".join(
            part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape") for part in chosen
        )
        texts.append(content if number % 2 else content.decode("utf-8", "surrogateescape"))
    return texts


def draw_documents(rng: np.random.Generator, count: int) -> list[str | bytes]:
    """Texts without NUL, which ends a document, from one byte to several windows."""
    texts = [
        text.replace("\0", "x") if isinstance(text, str) else text.replace(b"\0", b"x")
        for text in draw_texts(rng, count)
    ]
    return [text[: int(rng.integers(1, 60))] for text in texts]


def build_examples() -> dict[str, TaskExample]:
    """One of each task type and kind of input; the weights are always the same."""
    torch.manual_seed(0)
    image = ImageEncoder((3, 8, 6), "uint8", True, 10_000, (120.0, 115.0, 90.0), (60.0, 61.0, 59.0), DECODE_VERSION)
    table = fit_random(np.random.default_rng(1))
    features, text = table.inputs[0].shape[0], TextEncoder(24)
    tensors = TensorEncoder((TensorSpec("left", "float32", (3,)), TensorSpec("right", "float32", (2,))))

    def build_image_model(outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 4, outputs))

    def draw_rows(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while len(rows) < count:  # rows with a missing value and a category that training has not, none that is bad
            row = draw_row(rng, table)
            rows += [row] * (not table.encode_samples([row]).bad)
        return rows

    def draw_tensors(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
        return [{"left": rng.normal(size=3).astype(np.float32), "right": [0.5, 1]} for _ in range(count)]

    regression = Regression(2, model=nn.Linear(features, 2))
    regression.target_mean += 4000
    regression.target_std *= 700
    targets = AnswerNames(targets=(TargetColumn("body mass", "g"), TargetColumn("age")))
    return {
        "image": TaskExample(Classification(3, model=build_image_model(3)), image, NAMES, draw_images),
        "table": TaskExample(Classification(3, model=nn.Linear(features, 3)), table, NAMES, draw_rows),
        "text": TaskExample(Classification(3, model=MeanOfTokens(text.vocabulary, 3)), text, NAMES, draw_texts),
        "multilabel": TaskExample(Multilabel(3, model=build_image_model(3)), image, NAMES, draw_images),
        "segmentation": TaskExample(Segmentation(3, model=nn.Conv2d(3, 3, 1)), image, NAMES, draw_images),
        "regression": TaskExample(regression, table, targets, draw_rows),
        "language": TaskExample(
            Language(model=nn.Sequential(nn.Embedding(256, 6), nn.Linear(6, 256))),
            DocumentEncoder(DOCUMENT_BYTES),
            AnswerNames(),
            draw_documents,
        ),
        "tensors": TaskExample(PlainOutputs(), tensors, AnswerNames(), draw_tensors),
    }


EXAMPLES = ("image", "table", "text", "multilabel", "segmentation", "regression", "language", "tensors")
"""The names of `build_examples`, for the parameters of tests."""


def build_torch_model(example: TaskExample) -> TorchModel:
    """The example by torch."""
    task_type = resolve_task_type(example.task) or TensorType()
    return TorchModel.build(example.task, task_type, example.encoder, example.names)


def write_example(example: TaskExample, folder: Path, *, name: str = "example") -> Servable:
    """Export the example into a new folder."""
    trained = build_torch_model(example)
    content = prepend_encoder_graph(example.encoder, export_onnx(trained.model))
    engine, parity = OnnxEngine(content), Parity()
    measured = ExportMeasurement(
        content,
        SampleFormat(example.encoder, example.names),
        trained.task_type,
        engine.inputs,
        engine.outputs,
        parity,
        ReferenceBuilder(example.encoder, trained.task_type, example.names),
        None,  # type: ignore[arg-type]  # nothing is timed
        None,  # type: ignore[arg-type]  # nor compared again
        warmup=[],
        is_type_stated=True,
        find_layer=str,
    )
    document = build_servable_document(
        measured,
        name=name,
        run={"id": "1n8q4m7zk3xp", "folder": f"{name}-1n8q4m7zk3xp", "config_hash": "0" * 64},
        checkpoint={"name": "best.ckpt", "step": 3},
        data_version="v",
        licences={"data": None, "model": None},
    )
    return write_servable(folder, model=content, parity=parity.as_dict(), reference=None, document=document)


@pytest.fixture(scope="session")
def get_task_servable(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Servable]:
    """Return the servable of an example by its name, a new object of the same folder each time."""
    examples = build_examples()

    def get(name: str) -> Servable:
        made = made_once(
            tmp_path_factory, f"servable-{name}", lambda folder: write_example(examples[name], folder / "servable")
        )
        return load(made / "servable")

    return get
