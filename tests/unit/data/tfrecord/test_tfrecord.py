"""TFRecord files that TensorFlow 2.21 wrote, and damaged ones: read, named, or refused with what is wrong."""

from __future__ import annotations

import gzip
import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.data import Digits, TFRecord
from mlscale.data.decoding.image_decoder import decode_image
from mlscale.data.tfrecord.record_framing import build_record, frame_record, list_records, serialise_example
from mlscale.data.tfrecord.wire_format import (
    HeldBytes,
    WireFormatError,
    decode_bytes_list,
    decode_float_list,
    decode_int64_list,
    find_features,
)
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import picture

BY_TENSORFLOW = Path(__file__).parent / "by_tensorflow"
"""Twelve pictures of 16×12, JPEG and PNG in turn; three classes by number and name, zero to two tags, a weight."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    shutil.copytree(BY_TENSORFLOW, tmp_path / "photos")
    return tmp_path / "photos"


def read(folder: Path | str, **settings: Any) -> TFRecord:
    return TFRecord(folder, folder, **{"image_size": None, "batch_size": 4, **settings})


def test_keys_that_come_again_are_reported(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two records of one name are both read, but a list of names can't distinguish them."""
    data = read(photos, schema={"key": "image/class/text"})
    assert data.facts().train_samples == 12
    assert "records whose key an earlier one has: 9, the first: " in (printed := capsys.readouterr().err)
    assert "data.schema.key=null" in printed
    read(photos, schema={"key": "image/filename"}).facts()
    assert "earlier one" not in capsys.readouterr().err


def test_files_of_tensorflow(photos: Path) -> None:
    data = read(photos, schema={"key": "image/filename"})
    facts = data.facts()
    assert (facts.train_samples, facts.sample, facts.class_counts) == (12, (3, 12, 16), (4, 4, 4))
    batches = list(data.val_dataloader())
    keys = [key for batch in batches for key in batch["key"]]
    assert [key.partition("/")[2] for key in keys] == [f"photos/{number:04d}.jpg" for number in range(12)]
    assert torch.cat([batch["y"] for batch in batches]).tolist() == [number % 3 for number in range(12)]
    stored = data.read_raw_samples("val", np.arange(12))
    assert [content[:3] for content in stored] == [b"\x89PN", b"\xff\xd8\xff"] * 6
    pixels = (decode_image(bytes(stored[5]), None) - np.array(facts.mean)[:, None, None]) / np.array(facts.std)[
        :, None, None
    ]
    np.testing.assert_allclose(batches[1]["x"][1], pixels, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "names", "counts"),
    [
        ({"schema": {"label": "image/class/text"}}, ("bird", "cat", "dog"), (4, 4, 4)),
        ({"schema": {"label": "image/tags"}, "labels": "several"}, None, (8, 4)),
    ],
)
def test_labels_are_names_or_several(photos: Path, settings: Any, names: Any, counts: Any) -> None:
    facts = read(photos, **settings).facts()
    assert (facts.class_names, facts.class_counts) == (names, counts)


def test_samples_are_drawn_by_a_feature(photos: Path) -> None:
    data = read(photos, sampling="weighted", weights="image/weight", epoch_samples=600, batch_size=60)
    drawn = [int(key[-6:]) for batch in data.train_dataloader() for key in batch["key"]]
    odd = sum(number % 2 for number in drawn)  # their weight is 2, that of the others 1
    assert 0.6 < odd / len(drawn) < 0.73


def test_the_index_is_used_again_and_no_tar_is_taken_for_it(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As long after the files were written, their times are sure to show a later change.
    monkeypatch.setattr("mlscale.data.shards.index_files._CLOCK_TOLERANCE_NS", -1)
    before = read(photos, index="beside").facts().version
    index = photos / ".mlscale-index"
    stamps = {path: path.stat().st_mtime_ns for path in index.iterdir()}
    assert read(photos, index="beside").facts().version == before
    assert len(stamps) == 2
    assert stamps == {path: path.stat().st_mtime_ns for path in index.iterdir()}
    from mlscale.data import WebDataset

    with pytest.raises(MLScaleError, match="is not a tar file"):
        WebDataset(next(photos.glob("*00002")), photos, index="beside").facts()


@pytest.mark.parametrize(
    ("schema", "what", "where"),
    [
        ({"label": "nope"}, "no record has a feature 'nope'", "data.schema.label"),
        ({"image": "image/height"}, "has values of type int64", "data.schema.image"),
        ({"key": "image/tags"}, "8 of 12 records have no feature|records have no feature", "data.schema.key"),
        ({"x": "y"}, "data.schema has 'x'", "data.schema"),
    ],
)
def test_a_schema_that_does_not_fit(photos: Path, schema: Any, what: str, where: str) -> None:
    with pytest.raises(MLScaleError, match=what) as raised:
        read(photos, schema=schema).facts()
    assert where in str(raised.value)
    # Training and validation have one schema: what is wrong with both is written once.
    problems = str(raised.value).split("\n\n")
    assert len(set(problems)) == len(problems)


def test_the_usual_names_need_no_schema(tmp_path: Path) -> None:
    record = build_record({"image/encoded": picture(0), "image/class/label": 0, "b": picture(1), "n": 0})
    (tmp_path / "x.tfrecord").write_bytes(record * 4)
    assert read(tmp_path).facts().train_samples == 4
    assert read(tmp_path, schema={"image": "b", "label": "n"}).facts().train_samples == 4
    (tmp_path / "x.tfrecord").write_bytes(build_record({"b": picture(1), "n": 0}) * 4)
    with pytest.raises(MLScaleError, match="no record has a feature 'image/encoded'") as raised:
        read(tmp_path).facts()
    assert "data.schema.image=" in str(raised.value)


def test_several_labels_where_one_is_needed_name_the_setting(tmp_path: Path) -> None:
    record = build_record({"image/encoded": picture(0), "image/class/label": [0, 1]})
    (tmp_path / "x.tfrecord").write_bytes(record * 4)
    with pytest.raises(MLScaleError) as raised:
        read(tmp_path).facts()
    # The name of a tar's member and corruption would lead astray.
    assert "the label of sample x.tfrecord/000000 cannot be used" in str(raised.value)
    assert "fix:   data.labels=several" in str(raised.value)
    assert read(tmp_path, labels="several").facts().num_classes == 2


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_makes_a_bad_sample(photos: Path) -> None:
    path = photos / "photos.tfrecord-00001-of-00002"
    with open(path, "rb") as stream:
        start, size = list_records(stream.fileno(), path.stat().st_size)[3]
    read(photos, index="beside").facts()
    at = path.read_bytes().index(b"\xff\xda", start) + 80  # in the coded pixels, which no JPEG decoder checks
    assert at < start + size
    _flip(path, at)
    with pytest.raises(MLScaleError, match="000003 is corrupt"):
        list(read(photos).val_dataloader())
    data = read(photos, on_bad_sample="skip")
    weights = torch.cat([batch["weight"] for batch in data.val_dataloader()])
    assert weights.tolist() == [1.0] * 9 + [0.0] + [1.0] * 2
    with pytest.raises(MLScaleError, match=r"corrupt: 2 of 24 records[\s\S]*000003"):
        data.record_digests()
    # Its pixels still decode: without the comparison nothing shows.
    assert len(list(read(photos, verify=False).val_dataloader())) == 3


def test_messages_do_not_speak_of_members_that_records_have_not(tmp_path: Path) -> None:
    records = [
        build_record({"image": picture(n) if n else b"\x89PNG", "label": n % 2, "weight": b"much"}) for n in range(6)
    ]
    path = tmp_path / "0.tfrecord"
    path.write_bytes(b"".join(records))
    with pytest.raises(MLScaleError, match="cannot be decoded") as caught:
        read(str(path), schema={"image": "image", "label": "label"}).facts()
    assert caught.value.where == "its image of 4 bytes"
    path.write_bytes(b"".join(records[1:]))
    data = read(str(path), schema={"image": "image", "label": "label"}, sampling="weighted", weights="weight")
    with pytest.raises(MLScaleError, match=r"weight of sample 0\.tfrecord/000000 is not a number") as caught:
        data.train_dataloader()
    assert caught.value.why == "its feature 'weight' begins b'much'"
    with pytest.raises(MLScaleError, match="the samples have no feature 'colour'") as caught:
        read(str(path), schema={"image": "image", "label": "label"}).read_members("val", "colour")
    assert caught.value.why == "what they have: image, label"


def test_intact_records_are_counted(photos: Path) -> None:
    assert str(read(photos).record_digests()) == "digests of 4 shards compared"  # train and val name the same two


@pytest.mark.parametrize("lost", [1, 5, 300])
def test_a_file_that_is_cut_off_is_repaired_by_the_command(photos: Path, lost: int) -> None:
    path = photos / "photos.tfrecord-00000-of-00002"
    content = path.read_bytes()
    path.write_bytes(content[:-lost])
    with pytest.raises(MLScaleError, match="is cut off") as raised:
        read(photos).facts()
    command = str(raised.value).partition("; or ")[2].partition("   ")[0]
    subprocess.run(command, shell=True, check=True)
    assert read(photos).facts().train_samples == 11


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (gzip.compress(b"x" * 100, mtime=0), "is compressed"),
        (b"not a record at all", "is not a TFRecord file"),
        (frame_record(b"\x0a\xff\x01"), "is not a tf.train.Example"),
        (frame_record(b"\x0a\x00\x12\x00"), "is not a tf.train.Example[\\s\\S]*SequenceExample"),
        (frame_record(b"\x0b"), "is not a tf.train.Example"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "x.tfrecord").write_bytes(content)
    with pytest.raises(MLScaleError, match=what):
        read(tmp_path).facts()


def test_damage_never_ends_in_another_error(tmp_path: Path) -> None:
    """Bits flipped, bytes cut out and doubled at places drawn by a seed: read, or refused in words."""
    whole = (BY_TENSORFLOW / "photos.tfrecord-00000-of-00002").read_bytes()
    draw, refused = random.Random(11), 0
    path = tmp_path / "x.tfrecord"
    for _ in range(60):
        content, at = bytearray(whole), draw.randrange(len(whole))
        if (kind := draw.randrange(3)) == 0:
            content[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del content[at : at + draw.randrange(1, 40)]
        else:
            content[at:at] = content[at : at + draw.randrange(1, 40)]
        path.write_bytes(content)
        try:
            list(read(tmp_path, index="cache", workers=0).val_dataloader())
        except MLScaleError:
            refused += 1
    assert refused >= 58  # a bit of a checksum that is not read, such as of a record's height, may pass


@pytest.mark.parametrize("seed", range(3))
def test_written_examples_are_read_back(seed: int) -> None:
    draw = np.random.default_rng(seed)
    wide = [int(value) for value in draw.integers(-(2**63), 2**63 - 1, 20, dtype=np.int64)]
    features: dict[str, Any] = {
        "whole": [0, -1, 2**63 - 1, -(2**63), 127, 128, *wide],
        "real": draw.normal(size=7).astype(np.float32).tolist(),
        "text": ["naïve", "", "\0"],
        "bytes": draw.bytes(300),
        "none": [],
    }
    content = serialise_example(features)
    assert content == serialise_example(dict(reversed(features.items())))
    found = find_features(HeldBytes(content), 0, len(content))
    lists = {name: content[start : start + size] for name, (_, (start, size)) in found.items()}
    assert decode_int64_list(lists["whole"]) == features["whole"]
    assert decode_float_list(lists["real"]).tolist() == features["real"]
    assert decode_bytes_list(lists["text"]) == ["naïve".encode(), b"", b"\0"]
    assert decode_bytes_list(lists["bytes"]) == [features["bytes"]]
    assert "none" not in found


def test_lists_that_are_not_packed() -> None:
    """Other writers may write each number as a field of its own."""
    assert decode_int64_list(b"\x08\x05\x08\x96\x01") == [5, 150]
    assert decode_float_list(b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", -2)).tolist() == [1.5, -2]
    with pytest.raises(WireFormatError, match="does not end"):
        decode_int64_list(b"\x0a\x02\x80\x80")


def test_values_of_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="several types: bytes, int64"):
        serialise_example({"x": ["a", 1]})
    with pytest.raises(TypeError, match="NoneType"):
        serialise_example({"x": [None]})  # type: ignore[list-item]


def test_digits_written_as_records_are_the_same_batches(tmp_path: Path) -> None:
    digits = Digits(batch_size=64)
    digits.prepare_data()
    for split in ("train", "val"):
        source = digits.get_decoded_split(split).source
        records = (
            build_record({"image/encoded": source.read_image(n)[1], "image/class/label": int(source.raw_labels[n])})
            for n in range(len(source))
        )
        (tmp_path / f"{split}.tfrecord").write_bytes(b"".join(records))
    data = TFRecord(tmp_path / "train.tfrecord", tmp_path / "val.tfrecord", image_size=None, batch_size=64)
    for mine, theirs in zip(data.val_dataloader(), digits.val_dataloader(), strict=True):
        assert torch.equal(mine["x"], theirs["x"])
        assert torch.equal(mine["y"], theirs["y"])
