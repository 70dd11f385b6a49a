"""A user's own dataset is mixed with windows of production."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from mlscale.data import DatasetData
from mlscale.data.windows.dataset_window import read_dataset_window
from mlscale.errors import MLScaleError
from mlscale.retrain.gate_samples import (
    iterate_held_out_samples,
    iterate_original_samples,
    iterate_trained_samples,
    list_original_slices,
)


def make_split(count: int, start: float) -> TensorDataset:
    """Samples whose first number is their own; classes 0, 1 and 2 in turn."""
    x = torch.arange(count, dtype=torch.float32)[:, None].repeat(1, 4) + start
    return TensorDataset(x, torch.arange(count) % 3)


class WithNames(Dataset[dict[str, Any]]):
    """Samples that have more than x and y."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.full((4,), float(index)), "y": index % 3, "name": f"n{index}"}


def build_data(train: Dataset[Any] | None = None, **policy: Any) -> DatasetData:
    data = DatasetData(train or make_split(90, 0), make_split(12, 1000), batch_size=20, **policy)
    data.setup("fit")
    return data


def write_window(folder: Path, start: float, labels: str = "0120120101") -> Path:
    for part, offset in (("train", 0), ("held_out", 50)):
        samples = [np.full(4, start + offset + number, np.float32) for number in range(len(labels))]
        build_data().write_window(folder / part, samples, list(labels))
    return folder


def draw_epoch(data: DatasetData) -> np.ndarray:
    return np.concatenate([batch["x"][:, 0].numpy() for batch in data.train_dataloader()])


def test_a_window_has_its_share_of_each_epoch(tmp_path: Path) -> None:
    window = write_window(tmp_path / "w1", 5000)
    data = build_data(windows=[str(window)], replay=0.7, epoch_samples=200)
    drawn = draw_epoch(data)
    assert len(drawn) == 200
    assert (drawn >= 5000).sum() == 60
    assert set(drawn[drawn >= 5000]) == {5000.0 + number for number in range(10)}
    facts = data.facts()
    assert (facts.train_samples, facts.val_samples, facts.class_counts) == (100, 10, (34, 34, 32))
    assert draw_epoch(build_data(windows=[str(window)], replay=0.7, epoch_samples=200)).tolist() == drawn.tolist()


def test_the_gate_reads_each_part(tmp_path: Path) -> None:
    windows = [str(write_window(tmp_path / name, start)) for name, start in (("w1", 5000), ("w2", 6000))]
    data = build_data(windows=windows, replay=0.7)

    def read(batches: Any) -> tuple[list[float], list[int]]:
        pairs = [(x, y) for samples, truth in batches for x, y in zip(samples, truth.tolist(), strict=True)]
        return [float(x[0]) for x, _ in pairs], [y for _, y in pairs]

    assert read(iterate_held_out_samples(data)) == ([6050.0 + n for n in range(10)], [int(c) for c in "0120120101"])
    assert read(iterate_trained_samples(data))[0] == [6000.0 + n for n in range(10)]
    assert read(iterate_original_samples(data))[0] == [1000.0 + n for n in range(12)] + [5050.0 + n for n in range(10)]
    assert list_original_slices(data) == {"origin": ["original"] * 12 + ["w1"] * 10}


def test_classes_that_were_relabelled_are_left_out_of_the_old_data(tmp_path: Path) -> None:
    window = write_window(tmp_path / "w1", 5000)
    data = build_data(windows=[str(window)], replay=0.7, relabelled=["1", "2"])
    old = draw_epoch(data)
    assert set(old[old < 5000] % 3) == {0.0}
    with pytest.raises(MLScaleError, match="nothing of the old data is left"):
        build_data(windows=[str(window)], replay=0.7, relabelled=["0", "1", "2"])
    assert set(draw_epoch(build_data(windows=[str(window)], replay=0.0, epoch_samples=20)) // 1000) == {5.0}


def test_what_only_the_dataset_knows_of_a_sample_is_left_out_of_mixed_batches(tmp_path: Path) -> None:
    assert "name" in next(iter(build_data(WithNames()).train_dataloader()))
    data = build_data(WithNames(), windows=[str(write_window(tmp_path / "w1", 5000))], replay=0.5, epoch_samples=40)
    assert [set(batch) for batch in data.train_dataloader()] == [{"x", "y", "key"}] * 2


def test_equal_windows_in_other_folders_are_the_same_data(tmp_path: Path) -> None:
    first, second = (write_window(tmp_path / name, 5000) for name in ("w1", "w2"))
    versions = [build_data(windows=[str(window)]).facts().version for window in (first, second)]
    assert versions[0] == versions[1] != build_data().facts().version


@pytest.mark.parametrize("content", [None, b"", b"PK"])
def test_a_window_that_is_gone_or_corrupt(tmp_path: Path, content: bytes | None) -> None:
    window = write_window(tmp_path / "w1", 5000)
    path = window / "train" / "rows.npz"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MLScaleError, match="a file of a window can't be read") as caught:
        read_dataset_window(window / "train")
    assert str(path) in caught.value.where
