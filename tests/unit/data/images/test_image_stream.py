"""Batches of photographs: the same bits whoever makes them, and the caller's for as long as they keep them."""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mlscale.data import Augment, RandomCrop, WebDataset
from mlscale.data.images import labelled_images as images_module
from mlscale.data.order.batch_plan import BatchLayout
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import write_tar

Batch = dict[str, Any]
COUNT = 72


def photo(number: int) -> bytes:
    """A JPEG of a size of its own; every fifth is grey, every seventh a PNG."""
    random = np.random.RandomState(number)
    height, width = random.randint(40, 300, 2)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / random.uniform(4, 30)) * np.cos(y / random.uniform(4, 30)) * 120 + 128 for _ in range(3)]
    image = Image.fromarray(np.stack(waves, -1).astype(np.uint8)).convert("L" if number % 5 == 0 else "RGB")
    stream = io.BytesIO()
    image.save(stream, "PNG" if number % 7 == 0 else "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for shard in range(3):
        members: list[tuple[str, bytes]] = []
        for number in range(shard, COUNT, 3):
            content = photo(number)
            extension = "png" if number % 7 == 0 else "jpg"
            members += [(f"{number:03}.{extension}", content), (f"{number:03}.cls", str(number % 4).encode())]
        write_tar(folder / f"{shard}.tar", members)
    return folder


class Ranked(WebDataset):
    """One of several ranks, without a process of its own."""

    layout: BatchLayout

    def _build_layout(self) -> BatchLayout:
        return self.layout


def epoch(
    shards: Path, augment: object, *, batch_size: int = 24, workers: int = 2, layout: BatchLayout | None = None
) -> list[Batch]:
    data = Ranked(shards, shards, batch_size=batch_size, image_size=64, workers=workers, augment=augment)
    data.layout = layout or BatchLayout(batch_size)
    return list(data.train_dataloader())


def by_key(batches: list[Batch]) -> dict[str, torch.Tensor]:
    return {key: x for batch in batches for key, x in zip(batch["key"], batch["x"], strict=True)}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("augment", [None, RandomCrop(), Augment(0.1, 10, 0.1, True)], ids=["none", "crop", "augment"])
def test_a_sample_is_the_same_for_any_threads_batches_and_ranks(
    shards: Path, monkeypatch: pytest.MonkeyPatch, augment: object
) -> None:
    monkeypatch.setattr(images_module, "KEPT_BYTES", 0)
    reference = by_key(epoch(shards, augment, workers=0))
    assert len(reference) == COUNT
    for workers in (1, 3, 5):
        assert same(reference, by_key(epoch(shards, augment, workers=workers)))
    for batch_size in (1, 9, 72):
        assert same(reference, by_key(epoch(shards, augment, batch_size=batch_size)))
    for world_size, accumulate in ((2, 1), (4, 1), (2, 3)):
        layouts = [BatchLayout(24, world_size, rank, accumulate) for rank in range(world_size)]
        parts = [by_key(epoch(shards, augment, layout=layout)) for layout in layouts]
        assert same(reference, {key: x for part in parts for key, x in part.items()})


def test_a_crop_is_another_every_epoch_and_validation_has_none(shards: Path) -> None:
    data = WebDataset(shards, shards, batch_size=72, image_size=64, augment=RandomCrop(), seed=3)
    loader = data.train_dataloader()
    first, second = by_key(list(loader)), by_key(list(loader))
    assert not any(torch.equal(first[key], second[key]) for key in first)
    plain = WebDataset(shards, shards, batch_size=72, image_size=64)
    assert same(by_key(list(data.val_dataloader())), by_key(list(plain.val_dataloader())))


def test_a_crop_of_samples_in_memory_is_that_of_samples_that_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of one size are kept as they are stored, so that a part may be taken later."""
    members: list[tuple[str, bytes]] = []
    for number in range(20):
        stream = io.BytesIO()
        Image.fromarray(np.random.RandomState(number).randint(0, 256, (40, 30, 3), dtype=np.uint8)).save(stream, "JPEG")
        members += [(f"{number}.jpg", stream.getvalue()), (f"{number}.cls", b"0" if number else b"1")]
    shard = write_tar(tmp_path / "0.tar", members)

    def two_epochs(memory: int) -> list[dict[str, torch.Tensor]]:
        monkeypatch.setattr(images_module, "KEPT_BYTES", memory)
        loader = WebDataset(shard, shard, batch_size=10, augment=RandomCrop()).train_dataloader()
        return [by_key(list(loader)), by_key(list(loader))]

    for kept, decoded in zip(two_epochs(1 << 30), two_epochs(0), strict=True):
        assert same(kept, decoded)
        assert all(x.shape == (3, 40, 30) for x in kept.values())


def test_crops_are_mixed_too(shards: Path) -> None:
    (batch,) = epoch(shards, RandomCrop(mixup=0.2, block=8), batch_size=72)
    assert batch["y"].shape == (72, 4)
    assert torch.allclose(batch["y"].sum(1), torch.ones(72))
    assert ((batch["y"] > 0).sum(1) == 2).any()


def stream(shards: Path, **kwargs: Any) -> Iterator[Batch]:
    data = WebDataset(shards, shards, batch_size=12, image_size=224, workers=2, **kwargs)
    loader = data.train_dataloader()
    while True:
        yield from loader


@pytest.mark.parametrize("augment", [None, RandomCrop(), Augment(flip=True)], ids=["none", "crop", "augment"])
def test_a_batch_stays_what_it_is_while_it_is_kept(
    shards: Path, monkeypatch: pytest.MonkeyPatch, augment: object
) -> None:
    monkeypatch.setattr(images_module, "KEPT_BYTES", 0)
    batches = stream(shards, augment=augment)
    keep: list[tuple[torch.Tensor, torch.Tensor]] = []
    takes: list[Callable[[torch.Tensor], torch.Tensor]] = [lambda x: x, lambda x: x[3], lambda x: x.view(-1)[::7]]
    for number in range(24):
        x = next(batches)["x"]
        if number % 4 == 0:
            part = takes[number // 4 % 3](x)
            keep.append((part, part.clone()))
        del x
    assert all(torch.equal(part, copy) for part, copy in keep)


def test_memory_is_used_again(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "KEPT_BYTES", 0)
    batches = stream(shards, augment=RandomCrop())
    places = [next(batches)["x"].data_ptr() for _ in range(24)]
    assert len(set(places)) <= 6


def test_decoding_wakes_no_threads_of_torch(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread that decodes would have a team of its own, and they would all be in each other's way."""
    monkeypatch.setattr(images_module, "KEPT_BYTES", 0)
    torch_threads, tasks = torch.get_num_threads(), Path("/proc/self/task")
    before = len(os.listdir(tasks)) if tasks.is_dir() else 0
    batches = stream(shards, augment=RandomCrop())
    for _ in range(12):
        next(batches)
    if tasks.is_dir():
        assert len(os.listdir(tasks)) <= before + 2  # the stream's own
    assert torch.get_num_threads() == torch_threads


def test_a_shard_that_shrinks_while_it_is_read_is_reported(shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    data = WebDataset(copy, shards, batch_size=9, image_size=300, workers=3, augment=RandomCrop())
    batches = iter(data.train_dataloader())
    next(batches)
    for shard in copy.iterdir():
        os.truncate(shard, 2000)
    with pytest.raises(MLScaleError, match=r"was changed or replaced after|has become shorter"):
        list(batches)


def test_a_stream_that_is_left_stops_its_threads(shards: Path) -> None:
    batches = stream(shards)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name.startswith("mlscale-decode"):
            thread.join(20)
            assert not thread.is_alive()
