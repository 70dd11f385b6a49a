"""What a data module's encoder makes of a raw sample is, bit by bit, what training gets."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from mlscale.assembly.ready import compose_from_overrides
from mlscale.assembly.run_data import RunData
from mlscale.data import DatasetData, ImageFolder, TableFiles, TextFiles, TextTable
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, TensorSpec
from mlscale.data.encoders.stored_encoder import parse_encoder

LINES = ["island,mm,zip,y"] + [
    f"{('Dream', 'Ægir 🐧', '')[i % 3]},{'' if i % 7 == 0 else i / 3},{i % 4},{'ab'[i % 2]}" for i in range(60)
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def test_rows_of_a_table(table: Path) -> None:
    data = TableFiles(str(table), "y", val=str(table), categorical=["zip"])
    given = data.get_rows("val")
    x, _ = given.take_samples(np.arange(len(given)))
    with table.open(encoding="utf-8") as file:
        rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    encoder = data.encoder()
    assert encoder.encode_samples(rows).tensors[INPUT].tobytes() == x.tobytes()
    # As a client sends them: numbers as numbers.
    typed = [
        {**row, "mm": None if row["mm"] is None else float(row["mm"]), "zip": int(row["zip"] or 0)} for row in rows
    ]
    assert encoder.encode_samples(typed).tensors[INPUT].tobytes() == x.tobytes()


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    texts = ["plain", "🐧 is longer than a row", "é", "x" * 30]
    path.write_text("text,label\n" + "".join(f"{text},{i % 2}\n" for i, text in enumerate(texts)), encoding="utf-8")
    data = TextTable(str(path), val=str(path), length=12)
    x, _ = data.get_rows("val").take_samples(np.arange(4))
    assert data.encoder().encode_samples(texts).tensors[INPUT].tobytes() == x.tobytes()


def test_blocks_of_a_language_model(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe some text of any encoding, " * 20)
    data = TextFiles(str(tmp_path / "a.txt"), length=16)
    x, _ = data.get_rows("train").take_samples(np.arange(1))
    encoder = data.encoder()
    assert (encoder, encoder.vocabulary) == (DocumentEncoder(16), data.facts().vocab_size)
    # A document's first window has the end of the one before it, where a block of training has the next byte.
    window = encoder.encode_samples([(tmp_path / "a.txt").read_bytes()]).tensors[INPUT][0]
    assert window.tolist() == [0, *x[0].tolist()]


@pytest.mark.parametrize("size", [None, 8])
def test_images(tmp_path: Path, size: int | None) -> None:
    rng = np.random.default_rng(0)
    shape = (9, 13, 3) if size is None else (31, 17, 3)
    for split in ("train", "val"):
        for number in range(6):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    data = ImageFolder(tmp_path, image_size=size, batch_size=2)
    given, encoder = data.get_decoded_split("val"), data.encoder()
    contents = [given.source.read_image(sample)[1] for sample in range(len(given))]
    encoded = encoder.encode_samples(contents).tensors[INPUT]
    assert encoded.tobytes() == np.stack([given.get_sample(sample) for sample in range(len(given))]).tobytes()
    assert (encoder.mean, encoder.std, encoder.inputs[0].shape) == (*_get_scale(data), data.facts().sample)


def _get_scale(data: ImageFolder) -> tuple[Any, Any]:
    return data.facts().mean, data.facts().std


def test_a_users_own_dataset_has_tensors() -> None:
    dataset = TensorDataset(torch.randn(8, 3, 2), torch.arange(8) % 2)
    data = DatasetData(dataset, dataset)
    assert data.encoder().inputs == (TensorSpec(INPUT, "float32", (3, 2)),)


def test_a_later_run_on_the_same_data_has_the_same_digest(table: Path) -> None:
    words = ["+recipe=tabular", "data=table", f"data.train={table}", "data.target=y"]

    def get_document() -> dict[str, Any]:
        document = RunData().describe_data(compose_from_overrides("train", words)).encoder
        assert document is not None
        return document

    before = get_document()
    assert get_document() == before
    assert parse_encoder(before, where="x").kind == "table"
    table.write_text(table.read_text(encoding="utf-8").replace("Dream", "Biscoe"), encoding="utf-8")
    assert get_document()["digest"] != before["digest"]


def test_a_plain_data_module_has_none() -> None:
    assert RunData().describe_data(compose_from_overrides("train", ["+recipe=tabular", "data=none"])) == (None, None)
