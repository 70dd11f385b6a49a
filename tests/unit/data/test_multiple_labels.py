"""Several labels per sample: from lists of numbers or names, or vectors of 0 and 1."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.data import Augment, WebDataset
from mlscale.errors import MLScaleError, Problems
from tests.unit.data.conftest import picture, write_tar

TAGS: tuple[list[str], ...] = (["cat"], [], ["cat", "dog"])


def vector(*values: Any, dtype: type = np.uint8) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(values, dtype))
    return stream.getvalue()


def data(folder: Path, contents: list[bytes], extension: str = "json", **choices: Any) -> WebDataset:
    members = [
        member
        for i, content in enumerate(contents)
        for member in ((f"{i}.png", picture(i)), (f"{i}.{extension}", content))
    ]
    path = write_tar(folder / "0.tar", members)
    return WebDataset(path, path, **{"labels": "several", "batch_size": len(contents), **choices})


def labels_of(made: WebDataset) -> list[list[float]]:
    (batch,) = made.val_dataloader()
    assert batch["y"].dtype == torch.float32
    return batch["y"].tolist()  # type: ignore[no-any-return]


def test_labels_are_a_field_of_the_json_of_img2dataset(tmp_path: Path) -> None:
    contents = [
        json.dumps({"key": f"{i}", "n": i % 2, "no": None, "meta": {"tags": tags}}).encode()
        for i, tags in enumerate(TAGS)
    ]
    assert labels_of(data(tmp_path / "a", contents, label_field="meta.tags")) == [[1, 0], [0, 0], [1, 1]]
    one = data(tmp_path / "b", contents, label_field="n", labels="one")
    (batch,) = one.val_dataloader()
    assert batch["y"].tolist() == [0, 1, 0]
    for field, found in (
        ("meta.no", "has no value at"),
        ("no", "has no value at"),  # null does not become the name of a class
        ("meta.tags.0", "has no value at"),
        ("meta", "cannot be read"),
    ):
        with pytest.raises(MLScaleError, match=f"the label of sample 0.tar/0 {found}") as caught:
            data(tmp_path / "b", contents, label_field=field, labels="one").facts()
        assert isinstance(caught.value, Problems)  # of both splits
        assert caught.value.problems[0].fix.startswith("data.label_field=<")


def test_numbers_names_and_vectors(tmp_path: Path) -> None:
    numbers = data(tmp_path / "a", [b"[0, 2]", b"[]", b"[1, 1]"])
    assert labels_of(numbers) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert numbers.facts().class_counts == (1, 1, 1)
    names = data(tmp_path / "b", [json.dumps(each).encode() for each in (["dog", "cat"], ["cat"], [])])
    assert labels_of(names) == [[1, 1], [1, 0], [0, 0]]
    assert names.facts().class_names == ("cat", "dog")
    assert names.facts().class_counts == (2, 1)
    hot = data(tmp_path / "c", [vector(1, 0), vector(0, 1), vector(1, 1, dtype=float)], "npy", label_key="npy")
    assert labels_of(hot) == [[1, 0], [0, 1], [1, 1]]


def test_a_vector_has_a_place_for_classes_that_no_sample_has(tmp_path: Path) -> None:
    hot = data(tmp_path, [vector(0, 1, 0), vector(0, 0, 0)], "npy", label_key="npy")
    assert (hot.facts().num_classes, hot.facts().class_counts) == (3, (0, 1, 0))
    assert labels_of(hot) == [[0, 1, 0], [0, 0, 0]]
    short = write_tar(tmp_path / "v.tar", [("a.png", picture(0)), ("a.npy", vector(0, 1))])
    with pytest.raises(MLScaleError, match="have 2 entries, and those of the training data 3"):
        WebDataset(tmp_path / "0.tar", short, labels="several", label_key="npy").facts()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        *((content, "not a list") for content in (b"{}", b'"cat"', b"[true]", b"[1.5]")),
        (b"[1", "Expecting"),
    ],
)
def test_what_is_no_list(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(MLScaleError, match=r"labels of sample 0\.tar/1 cannot be read") as caught:
        data(tmp_path, [b"[0]", content]).facts()
    assert why in str(caught.value)


@pytest.mark.parametrize("wrong", [vector(0, 2), vector(1, 0, 1), np.zeros(0).tobytes(), vector([1], [0])])
def test_what_is_no_vector(tmp_path: Path, wrong: bytes) -> None:
    with pytest.raises(MLScaleError, match=r"labels of sample 0\.tar/1 cannot be read"):
        data(tmp_path, [vector(1, 0), wrong], "npy", label_key="npy").facts()


def test_labels_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="no training sample has a label"):
        data(tmp_path / "a", [b"[]", b"[]"]).facts()
    with pytest.raises(MLScaleError, match="some labels are numbers and some are names"):
        data(tmp_path / "b", [b'["cat"]', b"[0]"]).facts()
    with pytest.raises(MLScaleError, match="no training sample has label 1"):
        data(tmp_path / "c", [b"[0, 2]"]).facts()
    with pytest.raises(MLScaleError, match=r"not read from '\.cls' members"):
        data(tmp_path / "d", [b"1", b"0"], "cls", label_key="cls").facts()
    train = write_tar(tmp_path / "t.tar", [("a.png", picture(0)), ("a.json", b'["cat"]')])
    val = write_tar(tmp_path / "v.tar", [("a.png", picture(0)), ("a.json", b'["cow"]')])
    with pytest.raises(MLScaleError, match="a label that the training data does not have"):
        WebDataset(train, val, labels="several").facts()


def test_mixup_mixes_all_labels(tmp_path: Path) -> None:
    made = data(tmp_path, [b"[0, 1]", b"[2]"] * 4, augment=Augment(mixup=1.0, block=8))
    (batch,) = made.train_dataloader()
    assert batch["y"].shape == (8, 3)
    assert torch.allclose(batch["y"][:, 0], batch["y"][:, 1])
    assert torch.allclose(batch["y"][:, 0] + batch["y"][:, 2], torch.ones(8))
    assert ((batch["y"] > 0) & (batch["y"] < 1)).any()


def test_classes_are_not_drawn_equally_often(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="does not go with"):
        data(tmp_path, [b"[0]"], sampling="balanced")
