"""Samples that cannot be read: really damaged JPEGs and PNGs, in shards, in folders and from a dataset."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mlscale.data import DatasetData, ImageFolder, WebDataset
from mlscale.data.images import labelled_images as images_module
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.order.batch_plan import BatchLayout
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import picture, write_tar

N, BATCH = 50, 12
BAD = (3, 4, 5, 17, 40)


def damaged(number: int, kind: str) -> bytes:
    """An image cut off, overwritten in its middle, without its head, or empty."""
    whole = picture(number, size=(32, 32), kind=kind)
    half = len(whole) // 2
    forms = [
        whole[:half], whole[:half] + b"\xff" * (len(whole) - half), b"no image" + whole[8:], b"", whole[:20],
    ]  # fmt: skip
    return forms[BAD.index(number) % len(forms)]


def write(path: Path, kind: str, bad: tuple[int, ...] = BAD, count: int = N) -> Path:
    members: list[tuple[str, bytes]] = []
    for i in range(count):
        image = damaged(i, kind) if i in bad else picture(i, size=(32, 32), kind=kind)
        members += [(f"{i:02}.{kind.lower()}", image), (f"{i:02}.cls", str(i % 2).encode())]
    return write_tar(path, members)


@pytest.fixture(params=["PNG", "JPEG"])
def shards(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    kind = request.param
    return {"train": write(tmp_path / "t.tar", kind), "val": write(tmp_path / "v.tar", kind, (3, 4))}


def skipping(spec: dict[str, Any], **kwargs: Any) -> WebDataset:
    return WebDataset(**{**spec, "batch_size": BATCH, "on_bad_sample": "skip", **kwargs})


def number(key: str) -> int:
    return int(key.rsplit("/", 1)[-1])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_by_default_the_first_one_ends_the_run(tmp_path: Path, kind: str) -> None:
    train, val = write(tmp_path / "t.tar", kind, (17,)), write(tmp_path / "v.tar", kind, ())
    with pytest.raises(BadSample) as caught:
        WebDataset(train, val, batch_size=BATCH).facts()
    assert caught.value.what == "the sample t.tar/17 cannot be decoded"
    assert caught.value.where.startswith(f"its .{kind.lower()} member of ")
    assert caught.value.why
    assert "BytesIO" not in caught.value.why
    assert "data.on_bad_sample=skip" in caught.value.fix


def test_in_the_middle_of_training_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlscale.data.images import sample_probe

    monkeypatch.setattr(sample_probe, "PROBED", 2)
    train, val = write(tmp_path / "t.tar", "PNG", (17,)), write(tmp_path / "v.tar", "PNG", ())
    loader = WebDataset(train, val, batch_size=BATCH).train_dataloader()
    with pytest.raises(BadSample, match=r"t\.tar/17"):
        list(loader)


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("workers", [0, 2])
def test_each_is_replaced_by_the_next_readable_one_of_its_batch(
    shards: dict[str, Any], workers: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "KEPT_BYTES", memory)
    data = skipping(shards, workers=workers)
    order = data._get_sampling().get_epoch_order(0)
    for epoch in range(2):
        order = data._get_sampling().get_epoch_order(epoch)
        for step, batch in enumerate(data.train_dataloader()):
            planned = order(step * BATCH, (step + 1) * BATCH).tolist()
            expected = [next(s for s in planned[i:] + planned if s not in BAD) for i in range(BATCH)]
            assert [number(key) for key in batch["key"]] == expected
            assert batch["weight"].tolist() == [float(s not in BAD) for s in planned]
            assert batch["y"].tolist() == [s % 2 for s in expected]
            assert torch.isfinite(batch["x"]).all()
    found = {number(error.key) for error in data._skipped.errors.values()}
    planned = [s for e in range(2) for s in data._get_sampling().get_epoch_order(e)(0, N // BATCH * BATCH).tolist()]
    assert found == set(BAD) & set(planned)
    assert data._skipped.replaced_count == sum(s in BAD for s in planned)


def test_two_ranks_replace_as_one_does(shards: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What replaces a sample may be on the other rank; neither knows what the other has found."""
    whole = [(b["key"], b["weight"].tolist(), b["x"].clone()) for b in skipping(shards).train_dataloader()]
    halves = []
    for rank in range(2):
        data = skipping(shards)
        monkeypatch.setattr(data, "_build_layout", lambda rank=rank: BatchLayout(BATCH, 2, rank))
        halves.append([(b["key"], b["weight"].tolist(), b["x"].clone()) for b in data.train_dataloader()])
    for (keys, weight, x), one, two in zip(whole, *halves, strict=True):
        assert keys == one[0] + two[0]
        assert weight == one[1] + two[1]
        assert torch.equal(x, torch.cat((one[2], two[2])))


def test_a_run_that_goes_on_replaces_as_before(shards: dict[str, Any]) -> None:
    whole = [(b["key"], b["weight"].tolist()) for b in skipping(shards).train_dataloader()]
    data = skipping(shards)
    loader = iter(data.train_dataloader())
    for _ in range(2):
        next(loader)
    resumed = skipping(shards)
    resumed.load_state_dict(data.state_dict())
    assert [(b["key"], b["weight"].tolist()) for b in resumed.train_dataloader()] == whole[2:]


def test_evaluation_counts_each_readable_sample_once(shards: dict[str, Any]) -> None:
    counted = [
        number(key)
        for batch in skipping(shards).val_dataloader()
        for key, weight in zip(batch["key"], batch["weight"].tolist(), strict=True)
        if weight
    ]
    assert counted == [i for i in range(N) if i not in (3, 4)]


def test_what_is_decoded_despite_a_warning_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, val = (write(tmp_path / name, "JPEG", ()) for name in ("t.tar", "v.tar"))
    data = WebDataset(train, val, batch_size=10)
    data.setup("fit")
    capsys.readouterr()  # the same images train and validate
    list(data.train_dataloader())
    data.teardown("fit")
    assert capsys.readouterr().err == ""  # where nothing is wrong nothing is said
    members = []
    for number in range(N):
        image = picture(number, size=(32, 32), kind="JPEG")
        members += [
            (f"{number:02}.jpeg", image[:-2] if number in BAD else image),
            (f"{number:02}.cls", str(number % 2).encode()),
        ]
    data = WebDataset(write_tar(tmp_path / "w.tar", members), val, batch_size=10)
    data.setup("fit")
    capsys.readouterr()  # the same images train and validate
    list(data.train_dataloader())
    data.teardown("fit")
    assert capsys.readouterr().err == (
        f"images    {len(BAD)} decoded despite a harmless warning: "
        + ", ".join(f"train w.tar/{number:02} (Premature end of JPEG file)" for number in sorted(BAD)[:3])
        + ", …\n"
    )


def test_it_is_reported_and_counted(shards: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    data = skipping(shards, batch_size=10)
    data.setup("fit")
    list(data.train_dataloader())
    list(data.val_dataloader())
    data.teardown("fit")
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("leak")]
    assert len(lines) == 2
    assert lines[0].startswith("bad data  the sample ")
    assert lines[0].endswith("; it is replaced, and so are others")
    assert lines[1].startswith("bad data  7 unreadable, 5 places of training had weight 0: train t.tar/03, ")
    assert lines[1].endswith(", …")
    assert data.counted == {"data/bad_samples": 7, "data/bad_places": 5}
    data.teardown("validate")
    assert data.counted == {"data/bad_samples": 7}


def test_a_batch_without_a_readable_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = write(tmp_path / "t.tar", "PNG", (3, 4, 5), 8), write(tmp_path / "v.tar", "PNG", (), 4)
    data = WebDataset(train, val, batch_size=2, on_bad_sample="skip", epoch_samples=200)
    loader = data.train_dataloader()
    with pytest.raises(MLScaleError, match="none of the 2 samples of a global batch can be read") as caught:
        list(loader)
    assert "t.tar/0" in caught.value.why


def test_nothing_readable_at_all(tmp_path: Path) -> None:
    shard = write(tmp_path / "t.tar", "PNG", (3, 4), 5)
    empty = write_tar(tmp_path / "e.tar", [("3.png", b""), ("3.cls", b"0"), ("4.png", b"x"), ("4.cls", b"1")])
    with pytest.raises(MLScaleError, match="none of 2 training samples, evenly spread, can be decoded") as caught:
        WebDataset(empty, shard, on_bad_sample="skip").facts()
    assert "e.tar/3" in caught.value.why


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_in_a_folder(tmp_path: Path, policy: str) -> None:
    for i in range(24):
        path = tmp_path / "i" / f"class{i % 2}" / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damaged(3, "JPEG") if i == 3 else picture(i, size=(32, 32), kind="JPEG"))
    data = ImageFolder(tmp_path / "i", image_size=None, batch_size=11, on_bad_sample=policy)
    if policy == "fail":
        with pytest.raises(BadSample, match=r"class1/03\.jpg"):
            list(chain(data.train_dataloader(), data.val_dataloader()))
        return
    batches = list(chain(data.train_dataloader(), data.val_dataloader()))
    weights = torch.cat([batch["weight"] for batch in batches])
    assert int((weights == 0).sum()) == 1
    assert not any("03.jpg" in key for batch in batches for key in batch["key"])


class Leaky(Dataset[tuple[Tensor, int]]):
    """Fails to give two of its samples."""

    targets: list[int] = [i % 2 for i in range(40)]  # noqa: RUF012

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        if i in (7, 20):
            raise OSError("premature end of file")
        return torch.full((1, 2, 2), float(i)), self.targets[i]


@pytest.mark.parametrize("workers", [0, 2])
def test_from_a_dataset(workers: int) -> None:
    choice: Any = {"workers": workers, "executor": "process" if workers else "thread", "batch_size": 10}
    make: Callable[..., DatasetData] = lambda **kw: DatasetData(Leaky(), Leaky(), **choice, **kw)  # noqa: E731
    with pytest.raises(OSError, match="premature"):
        make().facts()
    batches = list(make(on_bad_sample="skip").train_dataloader())
    weights = torch.cat([batch["weight"] for batch in batches])
    assert int((weights == 0).sum()) == 2
    values = torch.cat([batch["x"][:, 0, 0, 0] for batch in batches])
    assert sorted(values[weights == 1].tolist()) == [float(i) for i in range(40) if i not in (7, 20)]
    assert len(set(values[weights == 0].tolist()) & {7.0, 20.0}) == 0


def test_an_unknown_word() -> None:
    with pytest.raises(MLScaleError, match="on_bad_sample is 'ignore'") as caught:
        DatasetData(Leaky(), Leaky(), on_bad_sample="ignore")
    assert caught.value.why == "it is one of: fail, skip"
