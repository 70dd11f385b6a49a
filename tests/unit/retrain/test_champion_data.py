"""The champion's data are read back, or a message has a way out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_lightning import LightningDataModule

from mlscale.commands.retrain.champion import require_champion_data
from mlscale.data import TableFiles, WebDataset
from mlscale.data.windows.image_window import write_image_window
from mlscale.errors import MLScaleError
from mlscale.retrain.gate_samples import (
    iterate_held_out_samples,
    iterate_original_samples,
    iterate_trained_samples,
    list_original_slices,
)
from mlscale.task_types.segmentation_type import encode_mask
from tests.unit.retrain.raw_servables import make_raw_servable


def make_table(path: Path, **options: object) -> TableFiles:
    lines = ["age,city,risk", *(f"{i / 7},{('Rome', 'Paris')[i % 2]},{('low', 'high')[i % 3 > 1]}" for i in range(50))]
    path.write_text("\n".join(lines))
    return TableFiles(str(path), "risk", **options)  # type: ignore[arg-type]


def test_data_that_are_what_they_were(tmp_path: Path) -> None:
    data = make_table(tmp_path / "a.csv")
    servable = make_raw_servable(data.encoder(), labels=("high", "low"), targets=("risk",))
    assert require_champion_data(data, servable, "runs/1") is data


def test_data_that_have_changed(tmp_path: Path) -> None:
    data = make_table(tmp_path / "a.csv")
    for labels, targets, why in ((("high", "low"), ("cost",), "targets"), (("a", "b"), ("risk",), "classes")):
        with pytest.raises(MLScaleError, match="are not what it was trained on") as caught:
            require_champion_data(data, make_raw_servable(data.encoder(), labels=labels, targets=targets), "runs/1")
        assert why in caught.value.why
    servable = make_raw_servable(data.encoder(), labels=("high", "low"), targets=("risk",))
    with (tmp_path / "a.csv").open("a") as file:
        file.write("\n1000,Rome,high" * 9)
    with pytest.raises(MLScaleError, match="are not what it was trained on") as caught:
        require_champion_data(TableFiles(str(tmp_path / "a.csv"), "risk"), servable, "runs/1")
    assert "its encoder, fitted again, differs" in caught.value.why
    assert "mlscale like=runs/1" in caught.value.fix


class OwnData(LightningDataModule):
    """A user's own."""


@pytest.mark.parametrize(("data", "what"), [(OwnData(), "OwnData"), (None, "loaders of its task")])
def test_data_that_can_not_be_read_back(tmp_path: Path, data: LightningDataModule | None, what: str) -> None:
    servable = make_raw_servable(make_table(tmp_path / "a.csv").encoder(), labels=("high", "low"))
    with pytest.raises(MLScaleError, match="can't be read back and mixed with a window") as caught:
        require_champion_data(data, servable, "runs/1")
    assert what in caught.value.what
    assert "data=table" in caught.value.fix


def test_the_gate_reads_raw_samples_with_their_truth(tmp_path: Path) -> None:
    before = make_table(tmp_path / "a.csv")
    rows = [{"age": float(number), "city": "Oslo"} for number in range(6)]
    for name in ("w1", "w2"):
        before.write_window(tmp_path / name / "train", rows[:4], ["low", "high", "low", "low"])
        before.write_window(tmp_path / name / "held_out", rows[4:], ["high", "low"])
    data = make_table(tmp_path / "a.csv", windows=[str(tmp_path / name) for name in ("w1", "w2")])
    ((raw, truth),) = iterate_held_out_samples(data)
    assert raw == rows[4:]
    assert truth.tolist() == [0, 1]
    ((raw, truth),) = iterate_trained_samples(data)
    assert raw == rows[:4]
    assert truth.tolist() == [1, 0, 1, 1]
    (first, _), (second, truth) = iterate_original_samples(data)
    assert len(first) == before.facts().val_samples
    assert second == rows[4:]
    assert truth.tolist() == [0, 1]
    assert list_original_slices(data) == {"origin": ["original"] * len(first) + ["w1"] * 2}
    assert not before.encoder().encode_samples(first).bad


def test_the_gate_reads_images_with_their_masks(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 1, 6, 6), np.uint8)
    masks = [base64.b64encode(encode_mask(mask)).decode() for mask in random.integers(0, 3, (8, 6, 6), np.uint8)]
    write_image_window(tmp_path / "old", list(images[:4]), masks[:4], kind="mask", is_named=True)
    options: dict[str, Any] = {
        "train": tmp_path / "old",
        "val": tmp_path / "old",
        "labels": "mask",
        "classes": ["a", "b", "c"],
    }
    before = WebDataset(**options)
    before.write_window(tmp_path / "w" / "train", list(images[4:7]), masks[4:7])
    before.write_window(tmp_path / "w" / "held_out", list(images[7:]), masks[7:])
    data = WebDataset(**options, windows=[str(tmp_path / "w")])
    for iterate, expected in (
        (iterate_held_out_samples, slice(7, 8)),
        (iterate_trained_samples, slice(4, 7)),
        (iterate_original_samples, slice(0, 4)),
    ):
        ((raw, truth),) = iterate(data)
        assert np.array_equal(data.encoder().encode_samples(raw).tensors["input"], images[expected])
        assert [base64.b64encode(encode_mask(mask)).decode() for mask in truth] == masks[expected]
    assert list_original_slices(data) == {}
