"""Rows of several origins as one split, without files of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.data.order.policy import Policy
from mlscale.data.split_rows import SplitRows
from mlscale.data.windows.joined_rows import (
    JoinedRows,
    SelectedRows,
    collect_raw_rows,
    count_left_out,
    join_row_windows,
)
from mlscale.data.windows.window_folder import (
    compute_window_mix,
    find_class_numbers,
    locate_window_part,
    read_window_digests,
    read_window_facts,
    write_window_digests,
    write_window_facts,
)
from mlscale.errors import MLScaleError


@dataclass(frozen=True, eq=False)
class Numbers:
    """Samples that are numbers from `first` on, their labels the same modulo 3."""

    first: int
    count: int
    version: str = "v"
    bad: Mapping[int, str] = field(default_factory=dict)
    is_labelled: bool = True

    @property
    def labels(self) -> NDArray[Any] | None:
        return (self.first + np.arange(self.count)) % 3 if self.is_labelled else None

    def __len__(self) -> int:
        return self.count

    def get_key(self, sample: int) -> str:
        return f"k{sample}"

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.stack([self.first + samples] * 2, 1).astype(np.float32), np.stack([(self.first + samples) % 3] * 2, 1)


FIRST, EMPTY, SECOND = Numbers(100, 4, "a", {1: "torn"}), Numbers(0, 0, "b"), Numbers(200, 3, "c", {0: "gone"})


@pytest.fixture
def joined() -> JoinedRows:
    return JoinedRows({"original": FIRST, "w1": EMPTY, "w2": SECOND})


def test_parts_follow_one_another(joined: JoinedRows) -> None:
    assert len(joined) == 7
    assert [joined.get_key(number) for number in (0, 3, 4, 6)] == ["k0", "k3", "w2/k0", "w2/k2"]
    assert joined.bad == {1: "torn", 4: "gone"}
    assert joined.labels is not None
    assert joined.labels.tolist() == [1, 2, 0, 1, 2, 0, 1]
    x, y = joined.take_samples(np.array([5, 0, 4, 3, 5]))
    # In the order of the request.
    assert x.tolist() == [[201, 201], [100, 100], [200, 200], [103, 103], [201, 201]]
    assert x.dtype == np.float32
    assert y.tolist() == [[0, 0], [1, 1], [2, 2], [1, 1], [0, 0]]
    # Labels of some parts alone are none of the whole.
    assert JoinedRows({"original": FIRST, "w": replace(SECOND, is_labelled=False)}).labels is None


def test_the_version_is_that_of_the_parts_in_their_order(joined: JoinedRows) -> None:
    assert joined.version == JoinedRows({"original": FIRST, "w1": EMPTY, "w2": SECOND}).version
    # Not of their names, which hold the random id of a cycle: equal windows train equal challengers.
    assert joined.version == JoinedRows({"original": FIRST, "w1": EMPTY, "w3": SECOND}).version
    others = [
        JoinedRows({"original": FIRST, "w2": SECOND, "w1": EMPTY}),
        JoinedRows({"original": FIRST, "w1": EMPTY, "w2": replace(SECOND, version="d")}),
    ]
    assert len({joined.version, *(rows.version for rows in others)}) == 3


def test_some_rows_of_others(joined: JoinedRows) -> None:
    rows = SelectedRows(joined, np.array([6, 1, 2]))
    assert len(rows) == 3
    assert [rows.get_key(number) for number in range(3)] == ["w2/k2", "k1", "k2"]
    assert rows.bad == {1: "torn"}
    assert rows.labels is not None
    assert rows.labels.tolist() == [1, 2, 0]
    assert rows.take_samples(np.array([2, 0]))[0][:, 0].tolist() == [102, 202]
    assert rows.version != SelectedRows(joined, np.array([1, 6, 2])).version
    assert rows.version.startswith(joined.version)
    assert SelectedRows(replace(FIRST, is_labelled=False), np.array([1])).labels is None


def read_numbers(rows: SplitRows, numbers: NDArray[np.int64]) -> list[Any] | None:
    assert isinstance(rows, Numbers)
    return [rows.first + number for number in numbers.tolist()] if rows.is_labelled else None


def test_raw_samples_of_any_origin(joined: JoinedRows) -> None:
    request = np.array([5, 0, 4, 3])
    assert collect_raw_rows(joined, request, read_numbers) == [201, 100, 200, 103]
    selected = JoinedRows({"original": SelectedRows(FIRST, np.array([3, 2])), "w": SECOND})
    assert collect_raw_rows(selected, np.array([2, 1, 0]), read_numbers) == [200, 102, 103]
    tensors = JoinedRows({"original": FIRST, "w": replace(SECOND, is_labelled=False)})
    assert collect_raw_rows(tensors, np.array([1, 4]), read_numbers) is None


@pytest.fixture
def windows(tmp_path: Path) -> list[str]:
    for name in ("w1", "w2", "w3"):
        for part in ("train", "held_out"):
            (tmp_path / name / part).mkdir(parents=True)
    return [str(tmp_path / name) for name in ("w1", "w2", "w3")]


SPLITS = {"train": Numbers(0, 9, "t"), "val": Numbers(10, 5, "v")}
PARTS = {
    "w1/train": (20, 3),
    "w1/held_out": (30, 2),
    "w2/train": (40, 6),
    "w2/held_out": (50, 4),
    "w3/train": (60, 3),
    "w3/held_out": (70, 1),
}


def read_part(folder: Path) -> Numbers:
    return Numbers(*PARTS[f"{folder.parent.name}/{folder.name}"], version=folder.name)


def join(windows: list[str], relabelled: list[int], **options: Any) -> dict[str, SplitRows]:
    return join_row_windows(Policy(windows=windows, **options), SPLITS, read_part, np.array(relabelled, np.int64))


def list_samples(rows: SplitRows) -> list[int]:
    return [int(number) for number in rows.take_samples(np.arange(len(rows)))[0][:, 0]]


def test_the_splits_of_a_retraining(windows: list[str]) -> None:
    splits = join(windows, [])
    assert list_samples(splits["train"]) == [*range(9), 20, 21, 22, *range(40, 46), 60, 61, 62]
    train, test = splits["train"], splits["test"]
    assert [train.get_key(number) for number in (0, 9, 12, 20)] == ["k0", "w1/k0", "w2/k0", "w3/k2"]
    assert list_samples(splits["val"]) == [70]
    assert list_samples(test) == [*range(10, 15), 30, 31, *range(50, 54)]
    assert [test.get_key(number) for number in (0, 5, 10)] == ["k0", "w1/k0", "w2/k3"]
    alone = join(windows, [], replay=0.0)
    assert list_samples(alone["train"]) == [60, 61, 62]
    assert list_samples(alone["test"]) == list_samples(test)


def test_old_samples_of_relabelled_classes_are_left_out(windows: list[str]) -> None:
    splits = join(windows, [0, 1])
    train = splits["train"]
    assert list_samples(train) == [2, 5, 8, 20, 41, 44, 60, 61, 62]
    assert isinstance(train, JoinedRows)
    assert count_left_out(train) == 6 + 2 + 4
    assert len(splits["test"]) == 5 + 2 + 4
    # One of the old parts may be empty, not all of them.
    small = {**SPLITS, "train": Numbers(0, 1)}
    policy = Policy(windows=windows)
    rows = join_row_windows(policy, small, read_part, np.array([0]))["train"]
    assert list_samples(rows) == [20, 22, 40, 41, 43, 44, 60, 61, 62]
    with pytest.raises(MLScaleError, match="nothing of the old data is left"):
        join(windows, [0, 1, 2])
    # Rows without labels have no classes.
    unlabelled = {**SPLITS, "train": replace(SPLITS["train"], is_labelled=False)}
    assert len(join_row_windows(policy, unlabelled, read_part, np.array([0]))["train"]) == 9 + 2 + 4 + 3


def test_a_window_is_a_folder_with_two_parts(windows: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    assert locate_window_part(windows[0], "train") == tmp_path / "w1" / "train"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate_window_part("~/w2", "held_out") == tmp_path / "w2" / "held_out"
    monkeypatch.chdir(tmp_path)
    assert locate_window_part("w2", "train").is_absolute()
    with pytest.raises(MLScaleError, match="has no folder train") as caught:
        locate_window_part(tmp_path / "w4", "train")
    assert str(tmp_path / "w4" / "train") in caught.value.fix


@pytest.mark.parametrize(
    ("replay", "left_out", "shares"),
    [(None, 0, [7, 3]), (0.5, 0, [1, 1]), (0.7, 100, [27, 23]), (0.5, 9900, [1, 99]), (0.6, 300, [27, 73])],
)
def test_the_shares_of_old_samples_and_the_window(replay: float | None, left_out: int, shares: list[int]) -> None:
    policy = Policy(windows=["w"], replay=replay)
    mix = compute_window_mix(policy, 100, 20, left_out)
    assert mix is not None
    assert (mix[0].tolist(), mix[1].tolist()) == ([100, 20], shares)
    assert mix[0].dtype == np.int64
    assert compute_window_mix(policy, 0, 20, left_out) is None


def test_the_numbers_of_classes() -> None:
    names = [f"c{number}" for number in range(25)]
    assert find_class_numbers(["c3", "c1"], names, 25).tolist() == [1, 3]
    assert find_class_numbers(["2", "0"], None, 3).tolist() == [0, 2]
    assert find_class_numbers([], None, 0).dtype == np.int64
    with pytest.raises(MLScaleError, match="unknown class 'c3'") as caught:
        find_class_numbers(["c1", "c3"], names[:3], 3)
    assert (caught.value.why, caught.value.fix) == ("the data has c0, c1, c2", "data.relabelled=[c0]")
    with pytest.raises(MLScaleError, match="unknown class 'x'") as caught:
        find_class_numbers(["c1", "x", "y"], names[:21], 21)
    assert caught.value.why == f"the data has {', '.join(names[:20])}, …"
    with pytest.raises(MLScaleError, match="unknown class 'x'") as caught:
        find_class_numbers(["x"], names[:20], 20)
    assert caught.value.why.endswith("c19")
    with pytest.raises(MLScaleError, match="unknown class 'a'") as caught:
        find_class_numbers(["a"], None, 0)
    assert caught.value.fix == "data.relabelled=[]"


def test_facts_of_held_out_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = np.array([2, 0])
    write_window_facts(tmp_path / "w" / "1", {"width": np.array([10.0, 20.0, 30.0])})
    found = read_window_facts("~/w/1", ("height", "width"), rows)
    assert list(found) == ["height", "width"]
    assert found["width"].tolist() == [30, 10]
    assert np.isnan(found["height"]).tolist() == [True, True]
    # Of nothing no file is made, and a window of an earlier version has none.
    write_window_facts(tmp_path / "w" / "2", {})
    assert not (tmp_path / "w" / "2").exists()
    assert np.isnan(read_window_facts(tmp_path / "w" / "2", ["width"], rows)["width"]).tolist() == [True, True]
    # What only code can read is refused.
    np.savez(tmp_path / "w" / "1" / "held_out_facts.npz", width=np.array([None]))
    with pytest.raises(MLScaleError, match="a file of a window can't be read"):
        read_window_facts(tmp_path / "w" / "1", ["width"], rows)


def test_digests_of_several_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_window_digests(tmp_path / "w" / "1", np.array([1, 2**64 - 1], np.uint64))
    write_window_digests(tmp_path / "w" / "2", np.array([1, 3], np.uint64))
    assert read_window_digests(["~/w/1", tmp_path / "w" / "2", tmp_path / "w" / "3"]) == {1, 3, 2**64 - 1}
