"""`data.executor`: the same batches wherever a user's code runs, and errors that name the sample."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from mlscale.data import DatasetData, ImageFolder, Loader, TarBackend, WebDataset
from mlscale.data.images import labelled_images
from mlscale.data.order.batch_plan import BatchLayout
from mlscale.data.workers import worker_process
from mlscale.data.workers.serve_requests import describe_failure
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import picture, write_masked, write_shards
from tests.unit.data.workers.transforms import AsFloat, Dies, Enlarge, Noise, Odd, Photos, Unreadable

COUNT = 40
Batches = list[dict[str, Any]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "t", COUNT)
    write_shards(folder / "v", 6)
    return folder


def open_shards(folder: Path, **choices: Any) -> WebDataset:
    return WebDataset(folder / "t", folder / "v", **{"batch_size": 16, "workers": 2, **choices})


def open_dataset(executor: str, *, workers: int | str = "auto", augment: Any = None, **choices: Any) -> DatasetData:
    return DatasetData(
        Photos(COUNT, **choices), Photos(6), batch_size=16, workers=workers, augment=augment, executor=executor
    )


def read_epochs(data: Any, count: int = 2) -> Batches:
    loader = data.train_dataloader()
    return [
        {name: value.clone() if isinstance(value, Tensor) else value for name, value in batch.items()}
        for _ in range(count)
        for batch in loader
    ]


def assert_same(one: Batches, other: Batches) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert torch.equal(value, b[name]) if isinstance(value, Tensor) else value == b[name]


def list_pids(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir()}


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("kept", [0, 1 << 30], ids=["decoded each time", "in memory"])
def test_a_transform_gives_the_same_batches_in_processes(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(labelled_images, "KEPT_BYTES", kept)
    here = read_epochs(open_shards(shards, augment=Noise(), executor="thread"))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    (pids := tmp_path / "pids").mkdir()
    data = open_shards(shards, augment=Noise(pids), executor="process")
    assert_same(here, read_epochs(data))
    assert torch.equal(torch.rand(1), expected), "the training loop's own draws are not disturbed"
    found = list_pids(pids)
    assert found
    assert os.getpid() not in found
    data.teardown("fit")
    assert wait_until(lambda: all(map(is_gone, found)))


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_have_the_batches_of_one(shards: Path, monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    whole = read_epochs(open_shards(shards, augment=Noise(), executor="thread"), 1)
    loaders = []
    for rank in range(ranks):
        data = open_shards(shards, augment=Noise(), executor="process", workers=1)
        monkeypatch.setattr(data, "_build_layout", lambda rank=rank: BatchLayout(16, ranks, rank))
        loaders.append(data.train_dataloader())
    for parts, batch in zip(zip(*loaders, strict=True), whole, strict=True):
        assert torch.equal(torch.cat([part["x"] for part in parts]), batch["x"])
        assert [key for part in parts for key in part["key"]] == batch["key"]


def test_a_run_resumes_in_processes_what_it_began_without(shards: Path) -> None:
    whole = read_epochs(open_shards(shards, augment=Noise(), executor="thread"))
    first = open_shards(shards, augment=Noise(), executor="thread")
    next(iter(first.train_dataloader()))
    resumed = open_shards(shards, augment=Noise(), executor="process")
    resumed.load_state_dict(first.state_dict())
    assert_same(whole[1:2], read_epochs(resumed, 1))


def test_masks_move_with_their_images(tmp_path: Path) -> None:
    write_masked(tmp_path / "t", COUNT)
    choices: Any = {"image_key": "png", "labels": "mask", "classes": 3, "augment": v2.RandomAffine(30)}
    here, there = (
        read_epochs(WebDataset(tmp_path / "t", tmp_path / "t", batch_size=16, workers=2, executor=executor, **choices))
        for executor in ("thread", "process")
    )
    assert_same(here, there)
    assert here[0]["y"].dtype == torch.uint8


def test_a_transform_may_change_the_size(shards: Path) -> None:
    here, there = (
        read_epochs(open_shards(shards, augment=Enlarge(), executor=executor), 1) for executor in ("thread", "process")
    )
    assert here[0]["x"].shape == (16, 3, 16, 24)
    assert_same(here, there)


def test_a_transform_that_changes_between_epochs_changes_in_processes(shards: Path) -> None:
    seen = []
    for executor in ("thread", "process"):
        augment = Dies(-1, "raise")
        loader = open_shards(shards, augment=augment, executor=executor).train_dataloader()
        list(loader)
        augment.total, augment.how = sum_of(shards), "raise"
        with pytest.raises(MLScaleError, match="not this one") as caught:
            list(loader)
        seen.append(caught.value.what)
    assert seen[0] == seen[1]


def sum_of(shards: Path, number: int = 5) -> int:
    """The sum of the pixels of a sample, by which `Dies` finds it."""
    batches = read_epochs(open_shards(shards, batch_size=40, executor="thread", augment=Enlarge()), 0)
    assert not batches
    data = open_shards(shards)
    return int(data.get_decoded_split("train").get_sample(number).astype(int).sum())


def test_a_sample_that_takes_long_is_named_once(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of the second and a half that it takes: a look at every second alone would not see it twice.
    monkeypatch.setattr(worker_process, "_HUNG_SECONDS", 1.0)
    data = open_shards(shards, augment=Dies(sum_of(shards), "wait"), executor="process")
    assert len(list(data.train_dataloader())) == 2
    key = data.get_decoded_split("train").source.get_key(5)
    lines = [line for line in capsys.readouterr().err.splitlines() if f"at the sample {key} for 1 s or longer" in line]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("how", "what", "why", "exit_code"),
    [
        ("kill", "by SIGKILL at the sample", "memory runs out", 5),
        ("exit", "with exit code 7 at the sample", "ended it", 2),
    ],
)
def test_a_worker_that_dies_ends_the_epoch_with_the_name_of_its_sample(
    shards: Path, how: str, what: str, why: str, exit_code: int
) -> None:
    augment = Dies(-1, how)
    data = open_shards(shards, augment=augment, executor="process")
    loader = data.train_dataloader()
    list(loader)
    augment.total, start = sum_of(shards), time.monotonic()
    with pytest.raises(MLScaleError, match=what) as caught:
        list(loader)
    assert time.monotonic() - start < 10
    assert caught.value.what.endswith(data.get_decoded_split("train").source.get_key(5))
    assert why in caught.value.why
    assert caught.value.exit == exit_code
    data.teardown("fit")


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_an_exception_names_its_sample_and_its_line(shards: Path, executor: str) -> None:
    data = open_shards(shards, augment=Dies(sum_of(shards), "raise"), executor=executor)
    with pytest.raises(MLScaleError, match="the transform Dies failed at the sample") as caught:
        list(data.train_dataloader())
    assert caught.value.what.endswith(data.get_decoded_split("train").source.get_key(5))
    assert "transforms.py:" in caught.value.where
    assert caught.value.why.startswith("ValueError: not this one")
    cause = caught.value.__cause__
    assert "in __call__" in str(cause) if executor == "process" else isinstance(cause, ValueError)


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize(("augment", "what"), [(Odd(), "of one sample and"), (AsFloat(), "returned a tensor of")])
def test_results_that_cannot_be_used_are_refused_alike(shards: Path, executor: str, augment: Any, what: str) -> None:
    with pytest.raises(MLScaleError, match=what):
        list(open_shards(shards, augment=augment, executor=executor).train_dataloader())


@pytest.mark.parametrize("augment", [lambda x: x, Unreadable()], ids=["lambda", "unreadable"])
def test_a_transform_that_cannot_be_sent_is_refused_with_a_fix(shards: Path, augment: Any) -> None:
    with pytest.raises(MLScaleError, match="another process") as caught:
        list(open_shards(shards, augment=augment, executor="process").train_dataloader())
    assert caught.value.fix.endswith("\ndata.executor=thread")
    assert len(list(open_shards(shards, augment=augment, executor="thread").train_dataloader())) == 2


def test_processes_without_work_are_refused(shards: Path) -> None:
    with pytest.raises(MLScaleError, match="has no effect") as caught:
        open_shards(shards, executor="process").train_dataloader()
    assert caught.value.fix == "data.executor=thread"
    with pytest.raises(MLScaleError, match=r"with data\.workers=0"):
        open_shards(shards, executor="process", workers=0, augment=Noise()).train_dataloader()
    with pytest.raises(MLScaleError, match=r"data\.executor is 'fork'"):
        open_shards(shards, executor="fork")
    with pytest.raises(MLScaleError, match=r"data\.workers=2 has no effect"):
        open_dataset("thread", workers=2)


class TestDatasets:
    """A user's own datasets."""

    @pytest.mark.parametrize("augment", [None, Noise()], ids=["plain", "augmented"])
    def test_the_same_batches(self, tmp_path: Path, augment: Any) -> None:
        here = read_epochs(open_dataset("thread", augment=augment))
        (pids := tmp_path / "pids").mkdir()
        data = open_dataset("process", workers=2, pids=pids, augment=augment)
        data.facts()  # looks at samples in this process
        for path in pids.iterdir():
            path.unlink()
        assert_same(here, read_epochs(data))
        assert list_pids(pids)
        assert os.getpid() not in list_pids(pids)

    def test_a_worker_that_dies(self) -> None:
        data = open_dataset("process", workers=2, dies="kill")
        data.facts()
        with pytest.raises(MLScaleError, match="by SIGKILL at the sample train/17"):
            list(data.train_dataloader())


def test_loader_takes_it_too(shards: Path) -> None:
    here, there = (
        [
            batch["x"].clone()
            for batch in Loader(
                TarBackend(shards / "t", shards / "v", batch_size=16, workers=2, augment=Noise(), executor=executor)
            )
        ]
        for executor in ("thread", "process")
    )
    assert all(map(torch.equal, here, there))
    assert len(here) == 2


def test_bad_samples_are_replaced_alike(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number in range(30):
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number)[: 60 if number == 7 else None])
    seen = [
        read_epochs(
            ImageFolder(
                folder, image_size=None, batch_size=9, workers=2, augment=Noise(), executor=executor,
                on_bad_sample="skip", val_fraction=0.2,
            )
        )
        for executor in ("thread", "process")
    ]  # fmt: skip
    assert_same(*seen)
    assert sum(int((batch["weight"] == 0).sum()) for batch in seen[0]) > 0


def test_an_error_without_a_text_is_its_name_alone() -> None:
    """A MemoryError has no text, and what follows the name in a message must not begin with a colon."""
    for error, expected in ((MemoryError(), "MemoryError"), (ValueError("7 rows"), "ValueError: 7 rows")):
        # Raised, since a failure has the line that it comes from.
        with pytest.raises(type(error)) as caught:
            raise error
        assert describe_failure(caught.value).why == expected
