"""Checkpoints in an object store: whole or absent, whenever the process that uploads them is killed."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import mlscale
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import read_content_digest, verify_checkpoint
from mlscale.runs.remote_checkpoints.checkpoint_store import CheckpointStore
from mlscale.runs.remote_checkpoints.store_access import check_store, mask_address, open_store
from tests.object_store import BUCKET, list_objects
from tests.unit.runs.remote_checkpoints.conftest import write_checkpoint, write_folder

ADDRESS = f"s3://{BUCKET}/mine/run1"


class KilledError(Exception):
    """The end of a process, at a request."""


@pytest.fixture
def store(bucket: Any) -> CheckpointStore:
    return open_store(ADDRESS, "here")


@pytest.mark.parametrize("write", [write_checkpoint, write_folder])
def test_a_checkpoint_comes_back_as_it_was(write: Any, store: CheckpointStore, tmp_path: Path) -> None:
    path = write(tmp_path / "last.ckpt", 3)
    store.put_checkpoint("last.ckpt", path)
    (found,) = store.list_checkpoints()
    assert (found.name, found.record.step, found.is_complete) == ("last.ckpt", 3, True)
    assert found.bytes == sum(p.stat().st_size for p in (path.iterdir() if path.is_dir() else [path]))
    (tmp_path / "again").mkdir()
    fetched = store.fetch_checkpoint(found, tmp_path / "again")
    assert fetched == tmp_path / "again/last.ckpt"
    assert verify_checkpoint(fetched).state == "ok"
    assert read_content_digest(fetched) == read_content_digest(path)
    assert [each.name for each in (tmp_path / "again").iterdir()] == ["last.ckpt"]


def test_one_replaces_another_and_is_removed(store: CheckpointStore, bucket: Any, tmp_path: Path) -> None:
    store.put_checkpoint("last.ckpt", write_folder(tmp_path / "a.ckpt", 3))
    store.put_checkpoint("last.ckpt", write_checkpoint(tmp_path / "b.ckpt", 4))
    store.put_checkpoint("best.ckpt", tmp_path / "b.ckpt")
    assert [found.record.step for found in store.list_checkpoints()] == [4, 4]
    assert len(list_objects(bucket)) == 4
    store.remove_checkpoint("last.ckpt")
    store.remove_checkpoint("last.ckpt")  # nothing to remove
    assert [found.name for found in store.list_checkpoints()] == ["best.ckpt"]
    assert len(list_objects(bucket)) == 2


@pytest.mark.slow
def test_whenever_it_is_killed_the_old_one_or_the_new_one_is_there(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each request of an upload over an older checkpoint; what is left is cleaned."""
    old, new = write_folder(tmp_path / "old.ckpt", 3), write_folder(tmp_path / "new.ckpt", 4)
    steps, requests = [], 0
    while True:
        store = open_store(ADDRESS, "here")
        store.put_checkpoint("last.ckpt", old)
        call, left = store._files._call_s3, requests

        async def call_or_end(*arguments: Any, call: Any = call, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            return await call(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(store._files, "_call_s3", call_or_end)
            try:
                store.put_checkpoint("last.ckpt", new)
                is_killed = False
            except KilledError:
                is_killed = True
        after = open_store(ADDRESS, "here")
        (found,) = after.list_checkpoints()
        assert found.is_complete
        steps.append(found.record.step)
        after.fetch_checkpoint(found, tmp_path)
        after.remove_incomplete()
        assert len(list_objects(bucket)) == len(found.files) + 1
        if not is_killed:
            break
        requests += 1
    assert requests > 6
    assert steps == sorted(steps)
    assert set(steps) == {3, 4}


def test_what_is_altered_or_missing_is_not_used(store: CheckpointStore, bucket: Any, tmp_path: Path) -> None:
    store.put_checkpoint("last.ckpt", write_checkpoint(tmp_path / "last.ckpt", 3))
    (found,) = store.list_checkpoints()
    (name,) = found.files
    key = f"mine/run1/{name}"
    content = bytearray(bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    content[200] ^= 1
    bucket.put_object(Bucket=BUCKET, Key=key, Body=bytes(content))
    with pytest.raises(MLScaleError, match="not what was uploaded"):
        store.fetch_checkpoint(found, tmp_path)
    assert verify_checkpoint(tmp_path / "last.ckpt").state == "ok"
    bucket.delete_object(Bucket=BUCKET, Key=key)
    assert [checkpoint.is_complete for checkpoint in store.list_checkpoints()] == [False]


def test_an_upload_in_parts_that_was_killed_is_aborted(store: CheckpointStore, bucket: Any) -> None:
    for key in ("mine/run1/last-1.ckpt", "mine/run10/last-1.ckpt"):
        bucket.create_multipart_upload(Bucket=BUCKET, Key=key)
    store.remove_incomplete()
    (left,) = bucket.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert left["Key"] == "mine/run10/last-1.ckpt"  # of another run


def test_documents_of_others_are_left_out(store: CheckpointStore, bucket: Any, tmp_path: Path) -> None:
    store.put_checkpoint("last.ckpt", write_checkpoint(tmp_path / "last.ckpt", 3))
    for name, content in {"a.json": b"{", "b.json": b"[]", "c.json": b'{"format": "mlscale/checkpoint/99"}'}.items():
        bucket.put_object(Bucket=BUCKET, Key=f"mine/run1/{name}", Body=content)
    assert [found.name for found in store.list_checkpoints()] == ["last.ckpt"]
    store.remove_incomplete()
    assert len(list_objects(bucket)) == 5


def test_what_is_missing_is_reported_before_a_run(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> MLScaleError:
        with pytest.raises(MLScaleError) as caught:
            check_store(address, "callbacks.checkpoint.dirpath")
        return caught.value

    check_store(ADDRESS, "callbacks.checkpoint.dirpath")
    assert list_objects(bucket) == []
    error = refuse("s3://other/mine")
    assert (error.what, error.exit) == ("the bucket of s3://other/mine does not exist", 2)
    assert "the schemes are: s3://" in refuse("hdfs://host/mine").why
    for words in (["resume=hdfs://b/x"], ["like=hdfs://b/x"]):
        with pytest.raises(MLScaleError) as caught:
            mlscale.compose(["recipe=resnet", *words])
        assert caught.value.where == "the address of the run: hdfs://b/x"
        assert "s3://<bucket>/<folder>/<run id>" in caught.value.why
    with pytest.raises(MLScaleError, match="not read from 's3:/'"):
        mlscale.compose(["recipe=resnet", "resume=s3:/b/x"])
    assert refuse("s3://").what == "the address of the checkpoints names no bucket"
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        error = refuse(ADDRESS)
        assert error.what == f"checkpoints can't be written to {ADDRESS}: the store does not answer"
        assert (error.exit, "AWS_ENDPOINT_URL" in error.fix, "AWS_PROFILE" in error.fix) == (5, True, False)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "s3fs", None)
        patch.delitem(import_module("fsspec.registry")._registry, "s3")  # what was imported before
        error = refuse(ADDRESS)
        assert (error.exit, error.fix) == (5, "pip install 'mlscale[s3]'")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    error = refuse(ADDRESS)
    assert (error.exit, "redentials" in error.why) == (5, True)
    assert ("AWS_PROFILE" in error.fix, "does not answer" in error.what) == (True, False)


def test_a_password_is_not_shown() -> None:
    assert mask_address("s3://key:secret@bucket/a") == "s3://bucket/a"
