"""WebDataset: batches from shards, and every way in which shards can be wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.data import Augment, WebDataset
from mlscale.data.images import labelled_images as images_module
from mlscale.errors import MLScaleError, Problems
from tests.unit.data.conftest import picture, write_shards, write_tar


@pytest.fixture
def seven(tmp_path: Path) -> dict[str, Any]:
    """RGB, 7 classes."""
    return {
        "train": write_shards(tmp_path / "train", 70, classes=7, size=(10, 6)),
        "val": write_shards(tmp_path / "val", 14, classes=7, size=(10, 6), shards=1),
    }


def same(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(p["x"], q["x"]) and torch.equal(p["y"], q["y"]) and p["key"] == q["key"]
        for p, q in zip(a, b, strict=True)
    )


def test_facts_and_batches_of_colour_images(seven: dict[str, Any]) -> None:
    data = WebDataset(**seven, batch_size=16)
    facts = data.facts()
    assert (facts.num_classes, facts.channels, facts.height, facts.width) == (7, 3, 6, 10)
    assert (facts.train_samples, facts.val_samples) == (70, 14)
    assert facts.class_counts == (10,) * 7
    assert facts.class_names is None
    batches = list(data.train_dataloader())
    assert [batch["x"].shape for batch in batches] == [(16, 3, 6, 10)] * 4
    for batch in batches:
        assert batch["x"].dtype == torch.float32
        assert batch["y"].dtype == torch.int64
        for x, y, key in zip(batch["x"], batch["y"], batch["key"], strict=True):
            shard, number = key.split("/")
            assert (int(shard[:3]), int(y)) == (int(number) % 2, int(number) % 7)
            pixels = x * torch.tensor(facts.std)[:, None, None] + torch.tensor(facts.mean)[:, None, None]
            expected = np.random.RandomState(int(number)).randint(0, 256, (6, 10, 3), dtype=np.uint8)
            assert np.array_equal(pixels.round().numpy().transpose(1, 2, 0), expected)
    total = torch.cat([batch["x"] for batch in batches])
    assert total.mean((0, 2, 3)).abs().max() < 0.1
    assert (total.std((0, 2, 3)) - 1).abs().max() < 0.1
    validation = list(data.val_dataloader())
    assert sum(float(batch["weight"].sum()) for batch in validation) == 14


@pytest.mark.parametrize("augment", [None, Augment(0.1, 10, 0.1, True)])
def test_threads_and_memory_change_nothing(
    seven: dict[str, Any], monkeypatch: pytest.MonkeyPatch, augment: Augment | None
) -> None:
    def epochs(workers: int, memory: int) -> list[dict[str, Any]]:
        monkeypatch.setattr(images_module, "KEPT_BYTES", memory)
        loader = WebDataset(**seven, batch_size=16, workers=workers, augment=augment).train_dataloader()
        return [batch for _ in range(2) for batch in loader]

    reference = epochs(1, 1 << 30)
    for workers, memory in [(4, 1 << 30), (1, 0), (4, 0), (0, 0)]:
        assert same(reference, epochs(workers, memory))


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_run_that_goes_on_sees_the_same_bits(seven: dict[str, Any], stop: int) -> None:
    def fresh() -> WebDataset:
        return WebDataset(**seven, batch_size=16, augment=Augment(0.1, 10, 0.1))

    loader = fresh().train_dataloader()
    expected = [batch for _ in range(2) for batch in loader]
    interrupted = fresh()
    loader, seen = interrupted.train_dataloader(), 0
    while seen < stop:
        for _ in loader:
            seen += 1
            if seen == stop:
                state = json.loads(json.dumps(interrupted.state_dict()))
                break
    resumed = fresh()
    resumed.setup("fit")
    resumed.load_state_dict(state)
    loader = resumed.train_dataloader()
    rest: list[dict[str, Any]] = []
    while len(rest) < len(expected) - stop:
        rest += list(loader)
    assert same(rest, expected[stop:])


def test_a_place_in_another_order_is_refused(seven: dict[str, Any]) -> None:
    state = WebDataset(**seven, batch_size=16, seed=1).state_dict()
    data = WebDataset(**seven, batch_size=16, seed=2)
    data.load_state_dict(state)
    list(data.val_dataloader())
    with pytest.raises(MLScaleError, match="another order") as caught:
        data.train_dataloader()
    assert caught.value.fix == "seed=1"
    data = WebDataset(**seven, batch_size=16, seed=1)
    data.load_state_dict({**state, "position": 8})
    with pytest.raises(MLScaleError, match="was saved at sample 8"):
        data.train_dataloader()


@pytest.mark.parametrize("recorded", [1, 2, None])
def test_a_checkpoint_of_another_decode_version_is_refused(seven: dict[str, Any], recorded: int | None) -> None:
    state = WebDataset(**seven, batch_size=16).state_dict()
    assert state["decode_version"] == 3
    state = {name: value for name, value in state.items() if name != "decode_version"}
    data = WebDataset(**seven, batch_size=16)
    data.load_state_dict(state if recorded is None else {**state, "decode_version": recorded})
    with pytest.raises(MLScaleError, match="images that were decoded in another way") as caught:
        data.train_dataloader()
    assert caught.value.why == f"its decode version is {recorded or 1}, and this run's is 3"
    assert caught.value.fix.startswith("mlscale like=<id of the run> init_from=<id of the run>")


def test_class_names_are_numbered_in_sorted_order(tmp_path: Path) -> None:
    names = {0: "zebra", 1: "ant", 2: "mole"}
    data = WebDataset(
        write_shards(tmp_path / "t", 12, names=names), write_shards(tmp_path / "v", 3, names=names), batch_size=12
    )
    assert data.facts().class_names == ("ant", "mole", "zebra")
    (batch,) = data.train_dataloader()
    for key, y in zip(batch["key"], batch["y"].tolist(), strict=True):
        assert ("ant", "mole", "zebra")[y] == names[int(key.split("/")[1]) % 3]


def test_images_are_resized_and_grey_among_colour_is_repeated(tmp_path: Path) -> None:
    members = []
    for i, (size, mode) in enumerate([((20, 10), "RGB"), ((9, 30), "L"), ((8, 8), "RGB"), ((40, 40), "L")]):
        members += [(f"{i}.jpg", picture(i, size=size, mode=mode, kind="JPEG")), (f"{i}.cls", str(i % 2).encode())]
    shard = write_tar(tmp_path / "0.tar", members)
    data = WebDataset(shard, shard, batch_size=4, image_size=8)
    assert (data.facts().channels, data.facts().height, data.facts().width) == (3, 8, 8)
    (batch,) = data.train_dataloader()
    grey = [i for i, key in enumerate(batch["key"]) if key.endswith(("1", "3"))]
    pixels = batch["x"] * torch.tensor(data.facts().std)[:, None, None] + torch.tensor(data.facts().mean)[:, None, None]
    assert torch.allclose(pixels[grey, 0], pixels[grey, 2], atol=1e-3)
    with pytest.raises(MLScaleError, match="differ in size") as caught:
        WebDataset(shard, shard, batch_size=4).facts()
    assert caught.value.fix == "data.image_size=8"  # the shortest side
    assert "20×10" in caught.value.why


def test_arrays_by_webdatasets_own_handlers(tmp_path: Path) -> None:
    members = []
    for i in range(4):
        stream = io.BytesIO()
        np.save(stream, np.full((2, 3, 5), i, np.float64))
        members += [(f"{i}.npy", stream.getvalue()), (f"{i}.json", json.dumps(i % 2).encode())]
    shard = write_tar(tmp_path / "0.tar", members)
    data = WebDataset(shard, shard, label_key="json", batch_size=4)
    facts = data.facts()
    assert (facts.channels, facts.height, facts.width, facts.mean) == (2, 3, 5, (1.5, 1.5))
    (batch,) = data.train_dataloader()
    assert batch["x"].shape == (4, 2, 3, 5)


def failure(train: Path, val: Path | None = None, **kwargs: Any) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        WebDataset(train, val or train, **{"batch_size": 2, **kwargs}).facts()
    return caught.value.problems[0] if isinstance(caught.value, Problems) else caught.value


def shard(path: Path, *labels: bytes, image: bytes | None = None) -> Path:
    members = []
    for i, label in enumerate(labels):
        members += [(f"{i}.png", image or picture(i)), (f"{i}.cls", label)]
    return write_tar(path, members)


@pytest.mark.parametrize(
    ("labels", "what", "why"),
    [
        ((b"0", b"-1", b"-1"), "2 samples have a negative label", "the smallest is -1"),
        ((b"0", b"1", b"3"), "the labels run to 3, but no training sample has label 2", "3 labels occur"),
        ((b"1", b"2"), "the labels run to 2, but no training sample has label 0", "from 1 to 2"),
        ((b"0", b"1000000000"), "the labels run to 1000000000", "2 labels occur"),
        ((b"0", b"cat"), "some labels are numbers and some are names", "1 are names (such as 'cat')"),
        ((b"0", b""), "the label of sample s.tar/1 cannot be read", "it is empty"),
        ((b"0", b"\xff"), "the label of sample s.tar/1 cannot be read", "begins b'\\xff'"),
    ],
)
def test_labels_that_are_wrong(tmp_path: Path, labels: tuple[bytes, ...], what: str, why: str) -> None:
    error = failure(shard(tmp_path / "s.tar", *labels))
    assert error.what.startswith(what)
    assert why in error.why
    assert error.where == "data.train"


def test_a_validation_label_that_training_lacks(tmp_path: Path) -> None:
    error = failure(shard(tmp_path / "t.tar", b"0", b"1"), shard(tmp_path / "v.tar", b"0", b"2", b"2"))
    assert error.what == "2 of 3 samples have a label that the training data does not have"
    assert "2 (2 samples)" in error.why
    assert error.where == "data.val"
    assert "negative" in failure(shard(tmp_path / "t.tar", b"0", b"1"), shard(tmp_path / "w.tar", b"-1")).what


def test_incomplete_samples_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [
        (f"{i}.{kind}", picture(i) if kind == "png" else b"%d" % (i % 2)) for i in range(8) for kind in ("png", "cls")
    ]
    lacking = [member for member in members if member[0] not in ("3.cls", "5.png")]
    whole = WebDataset(write_tar(tmp_path / "whole.tar", members), write_shards(tmp_path / "v", 4, classes=2))
    some = WebDataset(
        write_tar(tmp_path / "some.tar", lacking), write_shards(tmp_path / "v", 4, classes=2), incomplete="skip"
    )
    assert failure(tmp_path / "some.tar").fix.startswith("data.incomplete=skip")
    assert some.facts().train_samples == 6
    reported = "skipped incomplete samples: 2 of 8 (without .png: 1, without .cls: 1), the first: some.tar/3"
    assert f"data      data.train: {reported}" in capsys.readouterr().err
    assert some.facts().class_counts == (4, 2)
    assert [some.get_decoded_split("train").source.get_key(sample) for sample in range(6)] == [
        f"some.tar/{i}" for i in (0, 1, 2, 4, 6, 7)
    ]
    assert some.read_members("train", "cls") == [b"0", b"1", b"0", b"0", b"0", b"1"]
    assert np.array_equal(some.get_decoded_split("train").get_sample(3), whole.get_decoded_split("train").get_sample(4))
    none = write_tar(tmp_path / "none.tar", [("0.png", picture(0)), ("1.cls", b"0")])
    with pytest.raises(MLScaleError, match=r"2 of 2 samples lack their \.png and \.cls member"):
        WebDataset(none, tmp_path / "v", incomplete="skip").facts()


def test_a_member_that_was_appended_again_is_named(tmp_path: Path) -> None:
    members = [("0.png", picture(0)), ("0.cls", b"0"), ("1.png", picture(1)), ("1.cls", b"1"), ("0.cls", b"1")]
    error = failure(write_tar(tmp_path / "x.tar", members))
    assert error.what == "1 of 3 samples lack their .png member"
    assert "x.tar/0, a key that is in this shard 2 times" in error.why


def test_members_that_are_missing_or_ambiguous(tmp_path: Path) -> None:
    image = picture(0)
    no_label = write_tar(tmp_path / "a.tar", [("0.png", image), ("0.json", b"0")])
    assert failure(no_label).what == "the samples have no label '.cls'"
    assert failure(no_label).fix.split("\n") == [
        "data.label_key=<one of .json, .png>",
        "data.label_field=<a key of every sample's JSON>",
    ]
    one_lacks = write_tar(tmp_path / "b.tar", [("0.png", image), ("0.cls", b"0"), ("1.png", image)])
    assert failure(one_lacks).what == "1 of 2 samples lack their .cls member"
    assert "b.tar/1" in failure(one_lacks).why
    two = write_tar(tmp_path / "c.tar", [("0.png", image), ("0.mask.png", image), ("0.cls", b"0")])
    assert failure(two).what == "it is not clear which member is the image"
    assert WebDataset(two, two, image_key="png", batch_size=1).facts().channels == 3
    none = write_tar(tmp_path / "d.tar", [("0.txt", b"hello"), ("0.cls", b"0")])
    assert failure(none).what == "the samples have no image"
    assert failure(two, image_key="jpg").what == "the samples have no '.jpg' member"
    either = write_tar(tmp_path / "e.tar", [("0.png", image), ("0.cls", b"0"), ("1.jpg", image), ("1.cls", b"0")])
    assert WebDataset(either, either, batch_size=1).facts().train_samples == 2


def test_a_sample_that_cannot_be_decoded(tmp_path: Path) -> None:
    error = failure(shard(tmp_path / "s.tar", b"0", b"1", image=picture(0)[:60]))
    assert error.what == "the sample s.tar/0 cannot be decoded"
    assert error.why
    colour = write_tar(tmp_path / "v.tar", [("0.png", picture(0)), ("0.cls", b"0")])
    grey = write_tar(tmp_path / "g.tar", [("0.png", picture(0, mode="L")), ("0.cls", b"0")])
    with pytest.raises(MLScaleError, match=r"v\.tar/0 cannot be decoded") as caught:
        list(WebDataset(grey, colour, batch_size=1).val_dataloader())
    assert "the training data is grey" in caught.value.why


def test_a_validation_image_of_another_size(tmp_path: Path) -> None:
    train = shard(tmp_path / "t.tar", b"0", b"1")
    val = shard(tmp_path / "v.tar", b"0", image=picture(0, size=(9, 8)))
    with pytest.raises(MLScaleError, match="another size") as caught:
        list(WebDataset(train, val, batch_size=2).val_dataloader())
    assert caught.value.why == "9×8 pixels, not 8×8"
    assert caught.value.fix == "data.image_size=8"


class Bomb:
    """A pickle that leaves a trace when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("extension", ["pkl", "pyd", "pickle", "pth"])
def test_pickles_are_refused(tmp_path: Path, extension: str) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "went-off"))
    as_image = write_tar(tmp_path / "i.tar", [(f"0.{extension}", bomb), ("0.cls", b"0")])
    as_label = write_tar(tmp_path / "l.tar", [("0.png", picture(0)), (f"0.{extension}", bomb)])
    for error in (failure(as_image), failure(as_label, label_key=extension)):
        assert error.what == f"members '.{extension}' are not decoded"
        assert error.fix.startswith("data.allow=[pickle]")
    assert not (tmp_path / "went-off").exists()


def test_pickles_are_decoded_when_allowed(tmp_path: Path) -> None:
    members = [("0.pkl", pickle.dumps(np.zeros((4, 4), np.uint8))), ("0.cls", b"0")]
    path = write_tar(tmp_path / "i.tar", members)
    assert WebDataset(path, path, batch_size=1, allow=["pickle"]).facts().height == 4


def test_webdatasets_secure_mode_is_on_whoever_imports_it_first() -> None:
    code = (
        "import os; os.environ.pop('WDS_SECURE', None); import webdataset.utils as u; assert not u.enforce_security\n"
        "import mlscale.data.shards.secure_webdataset; assert u.enforce_security and os.environ['WDS_SECURE'] == '1'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arguments_that_are_wrong(tmp_path: Path) -> None:
    for kwargs, where in [
        ({"allow": ["pickles"]}, "data.allow"),
        ({"workers": -1}, "data.workers"),
        ({"workers": "many"}, "data.workers"),
        ({"image_size": 0}, "data.image_size"),
        ({"augment": 3}, "augment"),
    ]:
        with pytest.raises(MLScaleError) as caught:
            WebDataset(tmp_path, tmp_path, **kwargs)  # type: ignore[arg-type]
        assert caught.value.where == where


def test_the_problems_of_all_splits_at_once(tmp_path: Path) -> None:
    with pytest.raises(Problems) as caught:
        WebDataset(tmp_path / "a", tmp_path / "b", tmp_path / "c").facts()
    assert [problem.where for problem in caught.value.problems] == ["data.train", "data.val", "data.test"]


def test_a_split_that_is_not_there(seven: dict[str, Any]) -> None:
    with pytest.raises(MLScaleError, match="no test split"):
        WebDataset(**seven).test_dataloader()
