"""Labels have a digest of their own: a run does not resume on samples that were relabelled."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from mlscale.data import DatasetData, ImageFolder, TableFiles, TextFiles, TextTable, WebDataset
from mlscale.data.class_labels import compute_label_digest
from mlscale.data.data_module import OrderedData
from mlscale.data.shards.member_digests import record_digests
from mlscale.data.shards.shard_paths import find_shards
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import mask, picture, write_masked, write_shards

SIZE = (64, 64)


def relabel(folder: Path, extension: str, content: bytes, data: Callable[[], OrderedData]) -> None:
    """Write another label over that of a sample: one where the data version, which reads some blocks, is the same."""
    version = data()._open_stream("train")[2]
    shard = folder / "000.tar"
    before = shard.read_bytes()
    with tarfile.open(shard) as tar:
        members = [member for member in tar if member.name.endswith(extension)]
    for member in members:
        old = before[member.offset_data : member.offset_data + member.size]
        if old == content or len(old) != len(content):
            continue
        shard.write_bytes(before[: member.offset_data] + content + before[member.offset_data + member.size :])
        if data()._open_stream("train")[2] == version:
            return
    raise AssertionError("the data version covers every label")


def shards(tmp_path: Path) -> tuple[Callable[[], OrderedData], Callable[[], None]]:
    folder, val = write_shards(tmp_path / "s", 40, shards=1, size=SIZE), write_shards(tmp_path / "v", 6)

    def data() -> OrderedData:
        return WebDataset(folder, val, batch_size=4, image_size=8)

    return data, lambda: relabel(folder, "cls", b"2", data)


def several(tmp_path: Path) -> tuple[Callable[[], OrderedData], Callable[[], None]]:
    folder, val = write_masked(tmp_path / "s", 80, size=SIZE), write_masked(tmp_path / "v", 6)

    def data() -> OrderedData:
        return WebDataset(folder, val, batch_size=4, image_size=8, labels="several", image_key="png")

    return data, lambda: relabel(folder, "json", b"[2]", data)


def masks(tmp_path: Path) -> tuple[Callable[[], OrderedData], Callable[[], None]]:
    folder, val = write_masked(tmp_path / "s", 80, size=SIZE), write_masked(tmp_path / "v", 6)

    def data() -> OrderedData:
        return WebDataset(folder, val, batch_size=4, image_size=8, labels="mask", image_key="png", classes=3)

    def change() -> None:
        # One that has the length of another.
        lengths = {len(mask(number, size=SIZE)): number for number in range(0, 80, 2)}
        for number in range(1000, 4000):
            if len(other := mask(number, size=SIZE)) in lengths:
                relabel(folder, "mask.png", other, data)
                return
        raise AssertionError

    return data, change


def in_memory() -> OrderedData:
    x, y = torch.arange(320.0).reshape(20, 1, 4, 4), torch.arange(20) % 2
    return DatasetData(TensorDataset(x, y), TensorDataset(x, y), batch_size=4)


@pytest.mark.parametrize("kind", [shards, several, masks])
def test_a_run_does_not_resume_on_other_labels(
    tmp_path: Path, kind: Callable[[Path], tuple[Callable[[], OrderedData], Callable[[], None]]]
) -> None:
    data, change = kind(tmp_path)
    first = data()
    first.setup("fit")
    state = first.state_dict()
    assert set(state["labels"]) == {"train", "val"}

    def resumed(state: dict[str, object]) -> None:
        module = data()
        module.setup("fit")
        module.load_state_dict(state)
        module.train_dataloader()

    resumed(state)
    change()
    assert data().facts().version == first.facts().version
    assert data().facts().label_digest != first.facts().label_digest
    with pytest.raises(MLScaleError, match="the labels are not those of the checkpoint") as caught:
        resumed(state)
    assert caught.value.where == "data.train"
    resumed({key: value for key, value in state.items() if key != "labels"})  # of an earlier version


def test_every_kind_of_data_with_labels_has_a_digest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "a,b,target,text\n" + "".join(f"{i},{i * i},{i % 2},words {i}\n" for i in range(40))
    )
    (tmp_path / "u.csv").write_text((tmp_path / "t.csv").read_text().replace("3,9,1,", "3,9,0,"))
    for name in ("cat", "dog"):
        (tmp_path / "f" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "f" / name / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "a.txt").write_text("words " * 500)

    def made(table: str) -> list[OrderedData]:
        path = str(tmp_path / table)
        return [
            TableFiles(path, val=path, target="target", ignore=["text"]),
            TableFiles(path, val=path, target=["a", "b"], ignore=["text"]),
            TextTable(path, val=path, text="text", label="target"),
        ]

    for number, (before, after) in enumerate(zip(made("t.csv"), made("u.csv"), strict=True)):
        assert before.facts().label_digest is not None
        assert (before.facts().label_digest == after.facts().label_digest) is (number == 1)  # other columns
    folder = ImageFolder(tmp_path / "f", image_size=8)
    assert folder.facts().label_digest is not None
    assert in_memory().facts().label_digest is not None
    assert TextFiles(str(tmp_path / "a.txt"), length=16).facts().label_digest is None  # a byte's label is the next one


def test_what_prepare_records_does_not_change_the_digest_of_masks(tmp_path: Path) -> None:
    data, _ = masks(tmp_path)
    before = data().facts().label_digest
    record_digests(find_shards(tmp_path / "s", where="data.train"), where="data.train", keep="beside")
    assert data().facts().label_digest == before


def test_golden_digests() -> None:
    """Checkpoints hold them."""
    assert compute_label_digest(np.array([0, 1, 2])) == GOLDEN[0]
    assert compute_label_digest(np.array([[0, 1], [1, 1]], np.uint8), ["a", "b"]) == GOLDEN[1]


GOLDEN = ("7e7e00c96e7cd420", "26f43774bf198f05")
