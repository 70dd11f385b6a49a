"""Shards in an object store: moto's server has the interface of S3, on loopback."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mlscale.data import WebDataset
from mlscale.data.remote import find_remote, remote_shard
from mlscale.data.remote.bucket_store import BucketStore
from mlscale.data.remote.transfers import RemoteStat
from mlscale.errors import MLScaleError
from tests.object_store import serve_bucket
from tests.unit.data.remote.conftest import QUICK
from tests.unit.data.remote.cutting_proxy import cut_connections
from tests.unit.data.remote.test_remote_shards import list_batches, write_document


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Any]:
    """An empty bucket `photos`, and its client."""
    # Stores are kept in a process, and have the endpoint of the test before.
    monkeypatch.setattr(find_remote, "_stores", {})
    monkeypatch.setattr(remote_shard, "_opaque_buckets", set())
    with serve_bucket(monkeypatch, "photos") as client:
        yield client


def upload(client: Any, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="photos", Key=path.relative_to(folder).as_posix(), Body=path.read_bytes())


@pytest.mark.parametrize(
    "train", ["s3://photos/train/{000..004}.tar", "s3://photos/train/*.tar", "s3://photos/train", "s3://photos/train/"]
)
def test_the_same_batches_as_from_files(folder: Path, bucket: Any, train: str) -> None:
    upload(bucket, folder)
    local = WebDataset(folder / "train", folder / "val", batch_size=24)
    data = WebDataset(train, "s3://photos/val", batch_size=24)
    assert data.facts() == local.facts()
    assert list_batches(data) == list_batches(local)


def test_an_object_whose_name_has_marks_of_a_pattern(folder: Path, bucket: Any) -> None:
    content = (folder / "train" / "001.tar").read_bytes()
    bucket.put_object(Bucket="photos", Key="train[1]/[0].tar", Body=content)
    bucket.put_object(Bucket="photos", Key="train1/0.tar", Body=content[:1024])
    data = WebDataset("s3://photos/train[1]/[0].tar", folder / "val", batch_size=20)
    (folder / "[0].tar").write_bytes(content)
    assert list_batches(data) == list_batches(WebDataset(folder / "[0].tar", folder / "val", batch_size=20))


def test_a_copy_that_differs_from_its_etag_is_read_again(
    folder: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(bucket, folder)
    data = WebDataset("s3://photos/train", folder / "val", batch_size=24)
    corrupt_once(monkeypatch, data)
    assert list_batches(data) == list_batches(WebDataset(folder / "train", folder / "val", batch_size=24))
    assert data._remote.counts.total["failures"] == 1  # type: ignore[union-attr]


def test_a_transfer_that_the_package_itself_finds_wrong_is_read_again(
    folder: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer stores state a checksum of each object, which botocore compares."""
    upload(bucket, folder)
    stream, calls = BucketStore.stream_span, count()
    wrong = pytest.importorskip("botocore.exceptions").FlexibleChecksumError

    def stream_once_wrong(self: BucketStore, address: str, *others: Any) -> None:
        if address.endswith(".tar") and next(calls) == 0:
            raise wrong(error_msg="Expected checksum a did not match calculated checksum: b")
        stream(self, address, *others)

    monkeypatch.setattr(BucketStore, "stream_span", stream_once_wrong)
    data = WebDataset("s3://photos/train", folder / "val", batch_size=24)
    assert list_batches(data) == list_batches(WebDataset(folder / "train", folder / "val", batch_size=24))
    assert data._remote.counts.total["failures"] == 1  # type: ignore[union-attr]


def test_etags_of_an_encrypted_bucket_are_no_digests(
    folder: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the form of one: that every copy differs from them in the same way shows what they are."""
    upload(bucket, folder)
    data = WebDataset("s3://photos/train", folder / "val", batch_size=24)
    parse = BucketStore._parse_stat

    def disguise(self: BucketStore, entry: Any) -> Any:
        stat = parse(self, entry)
        return stat.__class__(stat.size, stat.etag, "0" * 32)

    monkeypatch.setattr(BucketStore, "_parse_stat", disguise)
    assert list_batches(data) == list_batches(WebDataset(folder / "train", folder / "val", batch_size=24))


def test_an_object_that_is_replaced_while_it_is_used(folder: Path, bucket: Any, cache: Path) -> None:
    upload(bucket, folder)
    data = WebDataset("s3://photos/train", folder / "val", batch_size=24)
    data.facts()
    for copy in (cache / "shards").glob("*.tar"):
        copy.unlink()
    content = (folder / "train" / "001.tar").read_bytes()
    bucket.put_object(Bucket="photos", Key="train/000.tar", Body=content)
    with pytest.raises(MLScaleError, match="was changed while it was used") as caught:
        data._indexes["train"].read_column(data._indexes["train"].extensions.index("png"))
    assert caught.value.where == "data.train"


def test_documents_and_indexes_are_found_in_buckets(folder: Path, bucket: Any, cache: Path) -> None:
    WebDataset(folder / "train", folder / "val", index="beside").record_digests()
    write_document(folder)
    upload(bucket, folder)
    for file in (cache / "index").glob("*"):
        file.unlink()
    data = WebDataset("s3://photos/train", "s3://photos/val", batch_size=24)
    source = data._open_split("train")
    assert not list((cache / "shards").glob("*.tar"))
    assert source.version == WebDataset(folder / "train", folder / "val")._open_split("train").version


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("s3://photos/train/{000..009}.tar", "5 of the 10 shards"),
        ("s3://photos/train/x-*.tar", "no shard matches"),
        ("s3://other/train/000.tar", "does not exist"),
    ],
)
def test_what_is_not_there(folder: Path, bucket: Any, spec: str, what: str) -> None:
    upload(bucket, folder)
    with pytest.raises(MLScaleError) as caught:
        WebDataset(spec, folder / "val").facts()
    assert what in caught.value.what
    assert caught.value.where == "data.train"


@pytest.mark.parametrize("hangs", [False, True])
def test_connections_that_end_or_hang_are_repeated(
    folder: Path, bucket: Any, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(bucket, folder)
    url = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    assert url.hostname
    assert url.port
    with cut_connections((url.hostname, url.port), cuts=3, after=9000, hangs=hangs) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        data = WebDataset("s3://photos/train/{000..004}.tar", folder / "val", batch_size=24)
        assert list_batches(data) == list_batches(WebDataset(folder / "train", folder / "val", batch_size=24))
        assert proxy.done == 3
        assert data._remote.counts.total["failures"] >= 3  # type: ignore[union-attr]


def test_an_endpoint_that_is_a_metadata_service(folder: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://169.254.169.254")
    with pytest.raises(MLScaleError, match="metadata service") as caught:
        WebDataset("s3://photos/train/000.tar", folder / "val").facts()
    assert caught.value.where == "data.train"


# The packages of Google take more than ten seconds to import.
@pytest.mark.parametrize("kind", [pytest.param("gs", marks=pytest.mark.slow), "az"])
def test_the_packages_of_other_stores_have_what_is_called(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an account nothing can be read; that their methods are there is looked at."""
    pytest.importorskip({"gs": "gcsfs", "az": "adlfs"}[kind])
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "someone")
    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
    store = BucketStore(kind, QUICK)
    for method, keywords in {"_info": set(), "_cat_file": {"start", "end"}, "_ls": {"detail"}, "_glob": set()}.items():
        parameters = inspect.signature(getattr(store._files, method)).parameters
        assert keywords <= parameters.keys() or "kwargs" in parameters


def test_an_account_that_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("adlfs")
    monkeypatch.setattr(find_remote, "_stores", {})
    for name in [name for name in os.environ if name.startswith("AZURE_STORAGE")]:
        monkeypatch.delenv(name)
    with pytest.raises(MLScaleError, match="cannot be read") as caught:
        WebDataset("az://photos/000.tar", folder / "val").facts()
    assert caught.value.where == "data.train"
    assert "account" in caught.value.why
    assert "environment" in caught.value.fix


def test_digests_that_stores_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(kind: str, **entry: Any) -> RemoteStat:
        store = BucketStore.__new__(BucketStore)
        store._kind = kind
        return store._parse_stat({"size": 7, **entry})

    md5 = "900150983cd24fb0d6963f7d28e17f72"
    assert parse("s3", ETag=f'"{md5}"') == RemoteStat(7, md5, md5)
    assert parse("s3", ETag=f'"{md5}-3"') == RemoteStat(7, f"{md5}-3")
    assert parse("gs", etag="CJ", md5Hash="kAFQmDzST7DWlj99KOF/cg==") == RemoteStat(7, "CJ", md5, is_md5_certain=True)
    assert parse("az", etag='"0x8D"') == RemoteStat(7, "0x8D")


def corrupt_once(monkeypatch: pytest.MonkeyPatch, data: WebDataset) -> None:
    """Change a byte of the first transfer of a shard."""
    stream, done = BucketStore.stream_span, list[str]()

    def stream_corrupt(self: BucketStore, address: str, start: int, stop: int, stat: Any, sink: Any) -> None:
        def change(at: int, content: bytes) -> None:
            if not done and address.endswith(".tar") and len(content) > 1000:
                done.append(address)
                content = content[:700] + bytes([content[700] ^ 1]) + content[701:]
            sink(at, content)

        stream(self, address, start, stop, stat, change)

    monkeypatch.setattr(BucketStore, "stream_span", stream_corrupt)
