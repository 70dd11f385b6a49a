"""Labelled texts of tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlscale.data import TextTable
from mlscale.data.encoders.text_encoder import as_tokens
from mlscale.errors import MLScaleError


def write(path: Path, rows: list[tuple[str | None, str | int | None]]) -> Path:
    lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
    path.write_text("\n".join(lines))
    return path


def test_tokens_are_bytes_plus_one_and_then_padding() -> None:
    assert as_tokens(["aé", b"\xff" * 5], 4).tolist() == [[98, 196, 170, 0], [256, 256, 256, 256]]


def test_a_table_of_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [(f"text {i}", ("ham", "spam")[i % 2]) for i in range(50)])
    data = TextTable(str(path), length=8, batch_size=8)
    facts = data.facts()
    assert (facts.sample, facts.dtype, facts.vocab_size, facts.class_names) == ((8,), "int64", 257, ("ham", "spam"))
    assert facts.train_samples + facts.val_samples == 50
    batch = next(iter(data.val_dataloader()))
    for key, x, y in zip(batch["key"], batch["x"], batch["y"].tolist(), strict=True):
        row = int(key.split()[1]) - 1
        assert np.array_equal(x.numpy(), as_tokens([f"text {row}"], 8)[0])
        assert y == row % 2


def test_labels_that_are_numbers_from_0_are_those_of_the_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [(f"text {i}", i % 12) for i in range(48)])
    data = TextTable(str(path), val=str(path), length=8)
    assert (data.facts().num_classes, data.facts().class_names) == (12, None)
    assert data.get_rows("val").take_samples(np.arange(24))[1].tolist() == [*range(12)] * 2


def test_labels_are_written_alike_in_every_split(tmp_path: Path) -> None:
    train, val = tmp_path / "a.csv", tmp_path / "b.csv"
    train.write_text("text,label\na,01\nb,x\n")
    val.write_text("text,label\n007,01\n")
    data = TextTable(str(train), val=str(val), length=4)
    x, y = data.get_rows("val").take_samples(np.arange(1))
    assert np.array_equal(x, as_tokens(["007"], 4))
    assert y.tolist() == [0]


def test_equal_texts_stay_on_one_side(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [(f"text {i % 25}", i % 2) for i in range(100)])
    data = TextTable(str(path), length=8)
    sides = [
        {row.tobytes() for row in data.get_rows(s).take_samples(np.arange(len(data.get_rows(s))))[0]}
        for s in ("train", "val")
    ]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_rows_without_text_or_label(tmp_path: Path) -> None:
    good: list[tuple[str | None, str | int | None]] = [(f"text {i}", i % 2) for i in range(20)]
    path = write(tmp_path / "a.jsonl", [(None, 1), ("  ", 0), ("more", None), *good])
    val = write(tmp_path / "b.jsonl", good)
    with pytest.raises(MLScaleError, match=r"the sample line 1 of a\.jsonl cannot be used") as caught:
        TextTable(str(path), val=str(val)).facts()
    assert caught.value.why == "text is missing; 3 of 23 samples are like this"
    data = TextTable(str(path), val=str(val), batch_size=23, on_bad_sample="skip")
    assert sum(data.facts().class_counts) == 20
    (batch,) = data.train_dataloader()
    assert batch["weight"].sum() == 20
    data.teardown("fit")
    assert data.counted == {"data/bad_samples": 3, "data/bad_places": 3}


def test_labels_that_training_does_not_have(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", [("x", "ham"), ("y", "spam")])
    val = write(tmp_path / "b.jsonl", [("x", "eggs")])
    with pytest.raises(MLScaleError, match="1 of 1 samples have a label that the training data does not have"):
        TextTable(str(train), val=str(val)).facts()


def test_both_mistyped_columns_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [("a", "x"), ("b", "y")])
    with pytest.raises(MLScaleError) as caught:
        TextTable(str(path), text="txt", label="lbl").facts()
    assert [key in str(caught.value) for key in ("data.text", "data.label")] == [True, True]
