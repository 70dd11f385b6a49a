"""Shards behind a web server: the same batches as from files, whatever fails on the way."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlscale import contracts
from mlscale.data import Loader, TarBackend, TFRecord, WebDataset
from mlscale.data.remote.shard_cache import ShardCache
from mlscale.data.shards import system_files
from mlscale.data.shards.index_files import compute_content_digest
from mlscale.data.shards.member_digests import record_digests
from mlscale.data.shards.shard_paths import find_shards
from mlscale.data.tfrecord.record_framing import build_record
from mlscale.errors import Exit, MLScaleError
from tests.unit.data.conftest import picture, write_shards
from tests.unit.data.remote.faulty_server import Faults, serve_folder

Serve = Callable[..., tuple[str, Faults]]
Batches = list[tuple[list[str], bytes, bytes]]


def list_batches(data: Any, epochs: int = 1) -> Batches:
    loader = data.train_dataloader()
    return [
        (batch["key"], batch["x"].numpy().tobytes(), batch["y"].numpy().tobytes())
        for _ in range(epochs)
        for batch in loader
    ]


def open_remote(url: str, **settings: Any) -> WebDataset:
    return WebDataset(f"{url}/train/{{000..004}}.tar", f"{url}/val/{{000..001}}.tar", **{"batch_size": 24, **settings})


@pytest.fixture
def local(folder: Path) -> WebDataset:
    return WebDataset(folder / "train", folder / "val", batch_size=24)


def test_the_same_facts_and_batches_as_from_files(folder: Path, serve: Serve, local: WebDataset, cache: Path) -> None:
    url, faults = serve(folder)
    data = open_remote(url)
    assert data.facts() == local.facts()
    assert list_batches(data, 2) == list_batches(local, 2)
    assert [b["key"] for b in data.val_dataloader()] == [b["key"] for b in local.val_dataloader()]
    assert data.state_dict()["version"] == local.state_dict()["version"]
    # Every shard came once, whole; the small requests are sizes, and files that might be there.
    sizes = {path: path.stat().st_size for path in folder.rglob("*.tar")}
    assert sum(faults.sent.values()) <= sum(sizes.values()) + 100 * len(sizes)
    assert len(list((cache / "shards").glob("*.tar"))) == len(sizes)
    # The next process reads the cache, and asks for sizes alone.
    faults.sent.clear()
    assert list_batches(open_remote(url)) == list_batches(WebDataset(folder / "train", folder / "val", batch_size=24))
    assert sum(faults.sent.values()) <= 100 * len(sizes)


def test_a_complete_cache_is_read_while_its_server_is_away(
    folder: Path, local: WebDataset, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_files, "_reported", set())  # a port may come again
    with serve_folder(folder, Faults()) as (url, _):
        assert list_batches(open_remote(url)) == list_batches(local)
        assert len(list(open_remote(url).val_dataloader())) > 0
    away = open_remote(url)
    assert list_batches(away) == list_batches(WebDataset(folder / "train", folder / "val", batch_size=24))
    assert [batch["key"] for batch in away.val_dataloader()] == [batch["key"] for batch in local.val_dataloader()]
    assert "the shards are read from the cache, as they were" in capsys.readouterr().err
    next((cache / "shards").glob("*.tar")).unlink()
    with pytest.raises(MLScaleError) as caught:
        open_remote(url).facts()
    assert caught.value.exit is Exit.ENVIRONMENT


def test_a_run_of_files_is_resumed_from_a_server(folder: Path, serve: Serve, local: WebDataset) -> None:
    whole = list_batches(local)
    url, _ = serve(folder)
    state = {**local.state_dict(), "epoch": 0, "position": 48}
    data = open_remote(url)
    data.load_state_dict(state)
    assert list_batches(data) == whole[2:]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_fails_is_repeated_and_counted(
    folder: Path, serve: Serve, local: WebDataset, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    url, faults = serve(folder, seed=seed, drop=0.2, corrupt=0.05, refuse=0.2, most=12)
    # With digests, any wrong byte is noticed.
    write_document(folder)
    data = open_remote(url)
    assert list_batches(data) == list_batches(local)
    data.teardown("fit")
    err = capfd.readouterr().err
    total = data._remote.counts.total  # type: ignore[union-attr]
    # Two wrong transfers of one shard are noticed as one.
    assert total["failures"] >= faults.done["drop"] + faults.done["refuse"] + (faults.done["corrupt"] > 0)
    counts = re.findall(r"^remote    (\d+) transfers? failed and repeated; downloaded", err, re.MULTILINE)
    assert sum(map(int, counts)) == total["failures"]


def test_what_failed_while_facts_were_read_is_printed(
    folder: Path, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another process trains, where there are several devices."""
    url, faults = serve(folder, refuse=1.0, most=2)
    open_remote(url).facts()
    assert faults.done["refuse"] == 2
    assert "remote    2 transfers failed and repeated; downloaded: 7 shards" in capfd.readouterr().err


def test_what_failed_in_validation_is_printed_when_training_ends(
    folder: Path, serve: Serve, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url, faults = serve(folder)
    data = WebDataset(folder / "train", f"{url}/val/{{000..001}}.tar", batch_size=24)
    data.facts()
    for copy in (cache / "shards").glob("*.tar"):
        copy.unlink()
    capfd.readouterr()
    # Its images are read once, and are kept: nothing is downloaded ahead of it.
    faults.refuse, faults.most = 1.0, 2
    list(data.val_dataloader())
    data.teardown("fit")
    assert faults.done["refuse"] == 2
    assert "remote    2 transfers failed and repeated" in capfd.readouterr().err


def test_a_stalled_connection_is_given_up(folder: Path, serve: Serve, local: WebDataset) -> None:
    url, faults = serve(folder, stall=1.0, most=2)
    data = open_remote(url)
    assert list_batches(data) == list_batches(local)
    assert data._remote.counts.total["failures"] == faults.done["stall"] == 2  # type: ignore[union-attr]


def test_a_dropped_download_is_resumed_where_it_ended(folder: Path, serve: Serve, local: WebDataset) -> None:
    url, faults = serve(folder, drop=1.0, most=3)
    assert list_batches(open_remote(url)) == list_batches(local)
    size = sum(path.stat().st_size for path in folder.rglob("*.tar"))
    assert sum(faults.sent.values()) <= size + 1000
    assert any(not wanted.startswith("bytes=0-") for _, wanted in faults.requests if wanted)


def test_retries_that_are_used_up_are_named(folder: Path, serve: Serve) -> None:
    # Without ranges each attempt begins again.
    url, _ = serve(folder, drop=1.0, ranges=False)
    with pytest.raises(MLScaleError, match="cannot be read") as caught:
        open_remote(url).facts()
    assert re.search(r", the last of \d failures", str(caught.value))
    assert "data.train" in str(caught.value)
    first = getattr(caught.value, "problems", (caught.value,))[0]
    assert first.exit == Exit.ENVIRONMENT
    assert first.fix


def test_bytes_that_stay_wrong_end_the_run(folder: Path, serve: Serve) -> None:
    write_document(folder)
    url, _ = serve(folder)
    path = folder / "train" / "002.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(MLScaleError, match="is not what its index or its digest states") as caught:
        open_remote(url).facts()
    assert "002.tar" in caught.value.what
    assert caught.value.where == "data.train"


def test_members_are_compared_with_the_index_next_to_the_shards(
    folder: Path, serve: Serve, local: WebDataset, cache: Path
) -> None:
    WebDataset(folder / "train", folder / "val", index="beside").record_digests()
    url, faults = serve(folder, corrupt=0.3, most=3, seed=2)
    data = open_remote(url)
    assert list_batches(data) == list_batches(local)
    assert faults.done["corrupt"] == 3
    assert data._remote.counts.total["failures"] >= 1  # type: ignore[union-attr]


def test_with_an_index_next_to_the_shards_facts_need_no_download(
    folder: Path, serve: Serve, local: WebDataset, cache: Path
) -> None:
    WebDataset(folder / "train", folder / "val", index="beside").record_digests()
    expected = local.facts()
    for file in (cache / "index").glob("*"):
        file.unlink()
    url, _ = serve(folder)
    source = TarBackend(f"{url}/train/{{000..004}}.tar", f"{url}/val/{{000..001}}.tar")
    labels = source._open_split("train").raw_labels
    assert sorted(labels) == sorted([i % 3 for i in range(100)])
    assert not list((cache / "shards").glob("*.tar"))
    assert open_remote(url).facts() == expected


def test_prepare_records_digests_of_remote_shards(folder: Path, serve: Serve) -> None:
    url, _ = serve(folder)
    assert open_remote(url).record_digests().shards == 7
    assert open_remote(url).record_digests().compared == 7
    data = open_remote(url)
    data.facts()
    assert data._indexes["train"].digests is not None


def test_labels_that_differ_from_the_index_are_noticed(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are taken from the index, so a copy that has others is another shard, though its blocks are the same."""
    monkeypatch.setattr("mlscale.data.images.labelled_images.KEPT_BYTES", 0)
    write_shards(tmp_path / "train", 30, shards=1, size=(90, 90))
    write_shards(tmp_path / "val", 9)
    WebDataset(tmp_path / "train", tmp_path / "val", index="beside").facts()
    path = tmp_path / "train" / "000.tar"
    whole, digest = path.read_bytes(), compute_content_digest(str(path))
    for header in (match.start() for match in re.finditer(rb"000\d\d\.cls", whole)):
        content = bytearray(whole)
        content[header + 512] ^= 3
        path.write_bytes(content)
        if compute_content_digest(str(path)) == digest:
            break
    else:
        raise AssertionError("every label is in a block")
    url, _ = serve(tmp_path)
    data = WebDataset(f"{url}/train/000.tar", tmp_path / "val", batch_size=10)
    with pytest.raises(MLScaleError, match="is not what its index"):
        list_batches(data)


def test_a_server_without_ranges(folder: Path, serve: Serve, local: WebDataset) -> None:
    url, faults = serve(folder, ranges=False, etag=False, drop=0.5, most=4)
    assert list_batches(open_remote(url)) == list_batches(local)
    assert faults.done["drop"] == 4


def test_a_shard_that_changes_is_another_one(folder: Path, serve: Serve, cache: Path) -> None:
    url, _ = serve(folder)
    version = open_remote(url).facts().version
    write_shards(folder / "train", 100, shards=5, classes=4)
    data = open_remote(url)
    assert data.facts().version != version
    # One that changes while it is used ends the run.
    shard = next(iter(data._indexes["train"].shards))
    for copy in (cache / "shards").glob("*.tar"):
        copy.unlink()
    write_shards(folder / "train", 120, shards=5)
    with pytest.raises(MLScaleError, match="was changed while it was used"), shard.open_reader(whole=True):
        pass


def test_tfrecord_files(tmp_path: Path, serve: Serve) -> None:
    for name, count in (("t0", 40), ("t1", 40), ("v", 9)):
        records = (build_record({"image/encoded": picture(i), "image/class/label": i % 3}) for i in range(count))
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{name}.tfrecord").write_bytes(b"".join(records))
    chosen: dict[str, Any] = {"image_size": None, "batch_size": 16}
    local = TFRecord(str(tmp_path / "set" / "t{0,1}.tfrecord"), tmp_path / "set" / "v.tfrecord", **chosen)
    url, faults = serve(tmp_path / "set", corrupt=0.5, drop=0.2, most=3, seed=1)
    data = TFRecord(f"{url}/t{{0,1}}.tfrecord", f"{url}/v.tfrecord", **chosen)
    expected = list_batches(local)
    # Which index it has decides what is noticed: the checksums of lengths stop a scan of corrupt bytes.
    TFRecord(
        str(tmp_path / "set" / "t{0,1}.tfrecord"), tmp_path / "set" / "v.tfrecord", index="beside", **chosen
    ).facts()
    assert list_batches(data) == expected
    assert faults.done["corrupt"]


def test_the_plain_loader(folder: Path, serve: Serve) -> None:
    url, _ = serve(folder)
    data = TarBackend(f"{url}/train/{{000..004}}.tar", f"{url}/val/{{000..001}}.tar", batch_size=24)
    files = TarBackend(folder / "train", folder / "val", batch_size=24)
    loader, other = Loader(data), Loader(files)
    assert [b["key"] for b in loader] == [b["key"] for b in other]
    assert loader.state_dict() == other.state_dict()


# What users type.


def test_a_folder_with_a_document(folder: Path, serve: Serve, local: WebDataset) -> None:
    write_document(folder)
    url, _ = serve(folder)
    assert list_batches(WebDataset(f"{url}/train", f"{url}/val/", batch_size=24)) == list_batches(local)


@pytest.mark.parametrize("spoil", [b"sha256", b'"shards"', b"mlscale/dataset/1"])
def test_digests_of_a_document_that_cannot_be_read_are_an_error(folder: Path, serve: Serve, spoil: bytes) -> None:
    url, _ = serve(folder)
    write_document(folder)
    path = folder / "dataset.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "sha256": contracts.compute_checksum(document)}))
    open_remote(url).facts()
    content = path.read_bytes()
    place = content.index(spoil) + len(spoil) - 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(MLScaleError, match=r"dataset\.json' can't be read|later mlscale|not a document"):
        open_remote(url).facts()
    path.write_text('{"name": "of another program"}')
    open_remote(url).facts()


@pytest.mark.parametrize("keep", ["adjacent", "cached"])
def test_digests_of_an_index_that_cannot_be_read_are_an_error(
    folder: Path, serve: Serve, cache: Path, keep: str
) -> None:
    url, _ = serve(folder)
    if keep == "adjacent":
        record_digests(find_shards(folder / "train", where="data.train"), where="data.train", keep="beside")
        damaged = next((folder / "train" / ".mlscale-index").iterdir())
    else:
        open_remote(url).record_digests()
        damaged = next(file for file in (cache / "index").iterdir() if file.suffix == ".npz")
    damaged.write_bytes(damaged.read_bytes()[:-300])
    with pytest.raises(MLScaleError, match=r"the index .* can't be read"):
        open_remote(url).facts()
    assert open_remote(url, verify=False).facts().train_samples == 100


def test_attempts_count_only_without_progress(folder: Path, serve: Serve) -> None:
    url, faults = serve(folder)
    shard = open_remote(url)._find_split_shards("train")[0]
    # More than there are attempts in a row; each brings half of what is left.
    faults.drop, faults.most = 1.0, 9
    with shard.open_copy() as path:
        assert Path(path).read_bytes() == (folder / "train" / "000.tar").read_bytes()
    assert faults.done["drop"] == 9


# The cache.


def test_a_cache_that_is_too_small_for_the_order_reads_samples(
    folder: Path, serve: Serve, local: WebDataset, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlscale.data.images.labelled_images.KEPT_BYTES", 0)
    url, _ = serve(folder)
    size = (folder / "train" / "000.tar").stat().st_size
    data = open_remote(url, cache_gb=1.5 * size / 1e9)
    assert list_batches(data, 2) == list_batches(local, 2)
    assert "data.order=windowed reads whole shards" in capfd.readouterr().err
    cache: ShardCache = data._remote.cache  # type: ignore[union-attr]
    assert cache.measure_space().used <= cache.limit


def test_windows_fit_into_a_cache_that_the_data_does_not(
    folder: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlscale.data.images.labelled_images.KEPT_BYTES", 0)
    url, _ = serve(folder)
    chosen: dict[str, Any] = {"order": "windowed", "shuffle_window": 1, "batch_size": 10}
    local = WebDataset(folder / "train", folder / "val", **chosen)
    size = (folder / "train" / "000.tar").stat().st_size
    data = open_remote(url, cache_gb=3.5 * size / 1e9, **chosen)
    assert list_batches(data, 3) == list_batches(local, 3)
    cache: ShardCache = data._remote.cache  # type: ignore[union-attr]
    assert cache.measure_space().used <= cache.limit
    assert data._remote.counts.total["shards"] >= 7  # type: ignore[union-attr]


def test_windows_that_the_cache_can_not_hold(folder: Path, serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    url, _ = serve(folder)
    size = (folder / "train" / "000.tar").stat().st_size
    chosen: dict[str, Any] = {"order": "windowed", "shuffle_window": 2}
    with pytest.raises(MLScaleError, match=r"a window of data\.train has") as caught:
        open_remote(url, cache_gb=1.5 * size / 1e9, **chosen).train_dataloader()
    assert caught.value.where == "data.cache_gb"
    assert "data.cache_gb=" in caught.value.fix
    open_remote(url, cache_gb=3.5 * size / 1e9, **chosen).train_dataloader()
    assert "two windows of data.train" in capfd.readouterr().err


def write_document(folder: Path) -> None:
    """Write what `mlscale prepare to=` leaves: the digest of every shard."""
    shards = {
        split: [
            {"name": path.name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in sorted((folder / split).glob("*.tar"))
        ]
        for split in ("train", "val")
    }
    document = {
        "format": "mlscale/dataset/1",
        "container": "tar",
        "labels": "one",
        "source_version": "x",
        "class_counts": [],
    }
    splits = {split: {"samples": 1, "shards": len(files)} for split, files in shards.items()}
    (folder / "dataset.json").write_text(json.dumps({**document, "splits": splits, "shards": shards}))
