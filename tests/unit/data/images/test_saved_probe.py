"""Mean and deviation are kept between starts, and only for the very images that they were taken from."""

from __future__ import annotations

import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from mlscale.data.data_facts import DataFacts
from mlscale.data.images import decoded_cache, sample_probe
from mlscale.data.images.webdataset import TarBackend
from mlscale.data.order.bad_samples import BadSample
from tests.unit.data.conftest import picture, write_shards, write_tar

COUNT = 40


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_probe, "_MIN_BYTES", 0)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "set", COUNT)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples that are decoded for shape, mean and deviation."""
    samples: list[int] = []
    decode = decoded_cache.decode_stored

    def count(source: Any, sample: int, *args: Any, **kwargs: Any) -> Any:
        samples.append(sample)
        return decode(source, sample, *args, **kwargs)

    monkeypatch.setattr(sample_probe, "decode_stored", count)
    return samples


def read_facts(folder: Path, **settings: Any) -> DataFacts:
    return TarBackend(folder, folder, batch_size=4, **settings).facts()


def list_saved(cache: Path) -> list[Path]:
    return sorted(cache.glob("index/probe-*.json"))


def test_a_second_start_decodes_nothing_and_has_the_same_values(shards: Path, decoded: list[int]) -> None:
    first = read_facts(shards)
    assert sorted(decoded) == list(range(COUNT))
    decoded.clear()
    # Floats come back from JSON bit by bit.
    assert astuple(read_facts(shards)) == astuple(first)
    assert not decoded


def test_another_size_is_another_result(shards: Path, decoded: list[int], cache: Path) -> None:
    whole, small = read_facts(shards), read_facts(shards, image_size=4)
    assert whole.mean != small.mean
    assert len(list_saved(cache)) == 2
    decoded.clear()
    assert (read_facts(shards).mean, read_facts(shards, image_size=4).mean) == (whole.mean, small.mean)
    assert not decoded


def test_a_changed_image_is_noticed_whatever_the_times_of_its_file(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a version that covers some blocks of the shard would be: the same for other pixels.
    monkeypatch.setattr("mlscale.data.shards.shard_index.Index.compute_data_version", lambda self: "same")
    images = [picture(number, kind="BMP") for number in range(8)]
    path = tmp_path / "set" / "000.tar"

    def write() -> None:
        pairs = [[(f"{n}.bmp", image), (f"{n}.cls", b"%d" % (n % 2))] for n, image in enumerate(images)]
        write_tar(path, [member for pair in pairs for member in pair])
        os.utime(path, (1e9, 1e9))

    write()
    before = read_facts(path.parent)
    images[3] = images[3][:-1] + bytes([images[3][-1] ^ 0xFF])
    write()
    decoded.clear()
    after = read_facts(path.parent)
    assert after.mean != before.mean
    assert sorted(decoded) == list(range(8))
    # The new result has replaced the old one.
    decoded.clear()
    assert read_facts(path.parent).mean == after.mean
    assert not decoded


@pytest.mark.parametrize("content", [b"", b"[]", b'{"images": []}', b'{"images": 3, "shape": {}}', b"\xff"])
def test_a_corrupt_file_is_as_good_as_none(shards: Path, cache: Path, content: bytes) -> None:
    facts = read_facts(shards)
    (path,) = list_saved(cache)
    path.write_bytes(content)
    assert read_facts(shards) == facts
    assert path.read_bytes() != content


def test_what_lacks_bad_samples_is_not_kept(tmp_path: Path, cache: Path) -> None:
    members = [
        (f"{i}.{name}", part) for i in range(8) for name, part in (("png", picture(i)), ("cls", b"%d" % (i % 2)))
    ]
    members[6] = (members[6][0], members[6][1][:40])
    folder = write_tar(tmp_path / "set" / "000.tar", members).parent
    val = write_shards(tmp_path / "val", 4, classes=2)
    TarBackend(folder, val, batch_size=4, on_bad_sample="skip").facts()
    assert not list_saved(cache)
    # Else this one would learn of the sample in the middle of its training.
    with pytest.raises(BadSample, match=r"000\.tar/3"):
        TarBackend(folder, val, batch_size=4).facts()


def test_a_few_small_images_are_not_worth_a_file(shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_probe, "_MIN_BYTES", 1 << 20)
    read_facts(shards)
    assert not list_saved(cache)


def test_a_cache_that_cannot_be_written_is_no_error(shards: Path, cache: Path) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file, and not a folder")
    assert read_facts(shards) == read_facts(shards)


def test_a_changed_digit_is_not_believed(shards: Path, decoded: list[int], cache: Path) -> None:
    first = read_facts(shards)
    (path,) = list_saved(cache)
    path.write_text(path.read_text().replace('"mean": [', '"mean": [1', 1))
    decoded.clear()
    assert astuple(read_facts(shards)) == astuple(first)
    assert decoded
