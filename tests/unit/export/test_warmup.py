"""Warm-up requests: what is recorded, and which servables repeat it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.atomic_files import read_json
from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.encoder import Encoder, TensorSpec
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.errors import MLScaleError
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.measure_export import ExportMeasurement
from mlscale.export.servable import Servable, load
from mlscale.export.validation_samples import SampleBatch
from mlscale.export.warmup import WARMUP, check_warmup, read_warmup, write_warmup
from mlscale.export.warmup.warmup_requests import REQUESTS
from mlscale.export.warmup.warmup_samples import WarmupSampler
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames, TaskType
from tests.contract.test_documents import validate
from tests.unit.export.conftest import save

Compute = Any


class Engine(OnnxEngine):
    """Computes by a function, in place of a graph."""

    def __init__(self, function: Compute) -> None:
        self._function = function

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs: dict[str, NDArray[Any]] = self._function(**tensors)
        return outputs


def build_servable(kind: str, encoder: Encoder, compute: Compute, *labels: str) -> Servable:
    """Return a servable without a folder."""
    task_type: TaskType = get_task_type(kind)
    document = {"format": "mlscale/servable/2"}
    return Servable(Path(), document, task_type, encoder, (), (), AnswerNames(labels), Engine(compute))


TABLE = TableEncoder(
    (
        NumberColumn("mm", 1.0, 0.0, 1.0, 0.0, 2.0, True, "mm"),
        CategoryColumn("island", ("", "Dream", "Ærø"), False),
    )
)


def classify(numbers: NDArray[np.float64], texts: NDArray[np.object_], shift: float = 0.0) -> dict[str, NDArray[Any]]:
    score = np.nan_to_num(numbers[:, 0], nan=1.0) + 3 * (texts[:, 0] == "Dream") + shift
    return {"logits": np.stack([score, 2 - score], 1).astype(np.float32)}


PICTURES = ImageEncoder((1, 8, 8), "uint8", False, 100, (), (), DECODE_VERSION)
ROWS: list[tuple[str, Any]] = [
    ("empty", {}),
    ("a", {"mm": 0.25, "island": "Dream"}),
    ("b", {"mm": None, "island": "Ærø"}),
    ("unclear", {"mm": 1.0, "island": ""}),
    ("c", {"mm": -3.5, "island": ""}),
]


def rows_servable(shift: float = 0.0) -> Servable:
    return build_servable("classification", TABLE, lambda **x: classify(**x, shift=shift), "no", "yes")


def test_what_is_written_is_answered_again(tmp_path: Path) -> None:
    servable = rows_servable()
    # A rounding error could change the classes of two of them: both classes are as probable.
    assert write_warmup(tmp_path / WARMUP, servable, ROWS) == 3
    document = read_json(tmp_path / WARMUP / REQUESTS)
    validate("warmup", document)
    warmup = read_warmup(tmp_path / WARMUP)
    assert warmup is not None
    assert [(request.key, request.sample) for request in warmup.requests] == [ROWS[0], ROWS[1], ROWS[4]]
    assert [request.answer and request.answer["label"] for request in warmup.requests] == [None, "no", "yes"]
    assert warmup.requests[0].error == "it lacks the columns 'mm', 'island' (null for a missing value)"
    assert check_warmup(servable, tmp_path / WARMUP) == []
    assert check_warmup(rows_servable(1e-5), tmp_path / WARMUP) == []
    assert check_warmup(servable, tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (rows_servable(0.3), "a: confidence is 0.99"),
        (rows_servable(float("nan")), "a: confidence is nan, which is not finite"),
        (replace(rows_servable(), names=AnswerNames(("yes", "no"))), "a: label is 'yes', not 'no'"),
        (replace(rows_servable(), task_type=get_task_type("multilabel")), "a: the answer has the fields"),
        (replace(rows_servable(), encoder=TextEncoder(4)), "a is refused: it is an object, not a text"),
    ],
)
def test_another_answer_is_a_problem_with_its_place(changed: Servable, problem: str, tmp_path: Path) -> None:
    write_warmup(tmp_path / WARMUP, rows_servable(), ROWS)
    found = check_warmup(changed, tmp_path / WARMUP)
    assert any(text.startswith(problem) for text in found), found


def test_a_sample_that_was_refused_is_refused_again(tmp_path: Path) -> None:
    write_warmup(tmp_path / WARMUP, rows_servable(), ROWS[:1])
    lenient = replace(rows_servable(), encoder=TensorEncoder((TensorSpec("numbers", "float64", ()),)))
    assert check_warmup(lenient, tmp_path / WARMUP) == []  # for another reason
    path = tmp_path / WARMUP / REQUESTS
    document = json.loads(path.read_text())
    document["requests"][0]["sample"] = ROWS[1][1]
    path.write_text(json.dumps(document))
    (problem,) = check_warmup(rows_servable(), tmp_path / WARMUP)
    assert problem.startswith("empty is answered, and was refused: it lacks the columns 'mm', 'island'")


def test_every_form_of_a_sample_is_read_as_it_was(tmp_path: Path) -> None:
    def count(**tensors: NDArray[Any]) -> dict[str, NDArray[Any]]:
        rows = next(iter(tensors.values()))
        return {"value": np.arange(3.0, 3.0 + len(rows))[:, None]}

    array, other = np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7)
    specs = (TensorSpec("x", "float32", (2, 3)), TensorSpec("n", "int64", ()))
    for encoder, samples in (
        (TextEncoder(8), ["naïve 🙂 NUL \0", b"\xff\xfe", "\udcff"]),
        (TensorEncoder(specs[:1]), [array]),
        (TensorEncoder(specs), [{"x": array, "n": other}]),
    ):
        servable = build_servable("regression", encoder, count)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        assert write_warmup(folder, servable, [(str(i), sample) for i, sample in enumerate(samples)]) == len(samples)
        validate("warmup", read_json(folder / REQUESTS))
        warmup = read_warmup(folder)
        assert warmup is not None
        for request, sample in zip(warmup.requests, samples, strict=True):
            if isinstance(sample, str):
                expected: Any = sample if sample.isprintable() or "\0" in sample else b"\xff"
            else:
                expected = sample
            np.testing.assert_equal(request.sample, expected)
        assert check_warmup(servable, folder) == []


def test_masks_are_compared_by_their_pixels(tmp_path: Path) -> None:
    encoder = TensorEncoder((TensorSpec("x", "uint8", (20, 20)),))

    def segment(flipped: int) -> Servable:
        def compute(x: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            pixels = x.reshape(len(x), -1) % 2
            pixels[:, :flipped] ^= 1
            mask = pixels.reshape(x.shape)
            return {"logits": np.stack([1.0 - mask, mask], 1).astype(np.float32)}

        return build_servable("segmentation", encoder, compute, "ground", "cloud")

    picture: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)
    assert write_warmup(tmp_path / "w", segment(0), [("p", picture)], tolerance=0.01) == 1
    assert check_warmup(segment(2), tmp_path / "w") == []
    (problem,) = check_warmup(segment(10), tmp_path / "w")
    assert problem == "p: 97.5% of the pixels of mask are as recorded, fewer than 99%"


def test_samples_are_of_several_classes_and_the_particular_ones() -> None:
    rows: list[Any] = [{"mm": 1.0, "island": "Dream"}] * 30 + [
        {"mm": None, "island": "Dream"},
        {"mm": 1.0, "island": "Hoth"},
        {"mm": 1.0, "island": "Ærø"},
    ]
    y = np.array([0] * 32 + [1])
    sampler = WarmupSampler(TABLE)
    sampler.add_batch(SampleBatch(rows, {}, None, y))
    keys = [key for key, _ in sampler.samples]
    assert keys[:5] == [
        "a row without columns",
        "sample 31, without a value of mm",
        "sample 32, with an unseen island",
        "sample 1",
        "sample 33",
    ]
    assert len(keys) <= 20


@pytest.mark.parametrize(
    ("encoder", "sample", "names"),
    [
        (TextEncoder(4), b"long enough", ["an empty text", "sample 1, longer than the model reads"]),
        (TextEncoder(40), "é".encode(), ["an empty text", "sample 1, not ASCII"]),
        (
            ImageEncoder((1, 8, 8), "uint8", False, 100, (), (), DECODE_VERSION),
            b"\x89PNG..",
            ["half of an image", "sample 1, as .png"],
        ),
        (TextEncoder(4), b"", []),
        (TextEncoder(4), b"x" * (1 << 23), []),
    ],
)
def test_what_is_particular_has_its_name(encoder: Encoder, sample: bytes, names: list[str]) -> None:
    sampler = WarmupSampler(encoder)
    sampler.add_batch(SampleBatch([sample], {}, None, np.zeros(1)))
    assert [key for key, _ in sampler.samples] == names


def test_an_exported_model_has_them_among_its_digests(measured: ExportMeasurement, tmp_path: Path) -> None:
    servable = save(measured, tmp_path / "servable")
    files = set(servable.document["files"])
    assert {name for name in files if name.startswith("warmup/")} == {
        f"warmup/{path.name}" for path in (servable.folder / WARMUP).iterdir()
    }
    assert check_warmup(servable, servable.folder / WARMUP) == []
    warmup = read_warmup(servable.folder / WARMUP)
    assert warmup is not None
    assert len(warmup.requests) == 8
    (picture,) = {request.file for request in warmup.requests if request.key.endswith("as .png")}
    assert picture is not None
    picture.write_bytes(picture.read_bytes() + b"!")
    with pytest.raises(MLScaleError, match="corrupt or altered"):
        load(servable.folder)
    assert "warmup/warmup.json" not in save(measured, tmp_path / "without", warmup=False).document["files"]


@pytest.mark.parametrize(
    "change",
    [
        {"tolerance": None},
        {"requests": [{"key": "x", "form": "row", "sample": {}}]},
        {"requests": [{"key": "x", "form": "pickle", "file": "0", "answer": {}}]},
        {"requests": [{"key": "x", "form": "file", "file": "../model.onnx", "answer": {}}]},
    ],
)
def test_a_corrupt_document_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    write_warmup(tmp_path / "w", rows_servable(), ROWS)
    path = tmp_path / "w" / REQUESTS
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(MLScaleError, match=r"warmup\.json is corrupt"):
        read_warmup(tmp_path / "w")
