"""The object store of a run that exists: what is read, shown and uploaded, and what is said where it is down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.cli import main
from mlscale.commands.runs.entry import send_pending
from mlscale.config.checkpoint_address import find_checkpoint_address
from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.runs.remote_checkpoints.run_store import restore_missing, upload_missing
from mlscale.runs.remote_checkpoints.store_access import create_access_error
from tests.object_store import BUCKET, list_objects
from tests.unit.runs.remote_checkpoints.conftest import write_checkpoint, write_folder

NOWHERE = "http://127.0.0.1:9"
BOTH = (("best", 3), ("last", 4))


@pytest.fixture
def run(start: Callable[..., RunFolder], bucket: Any) -> RunFolder:
    """A run with a store, in which nothing is yet."""
    made = start()
    made.update_document(checkpoint_store=f"s3://{BUCKET}/mine/{made.id}")
    (made.path / "checkpoints").mkdir(exist_ok=True)
    return made


def show(action: str, run: RunFolder, *words: str) -> int:
    return main(["runs", action, str(run.path), *words])


def test_what_is_missing_is_uploaded_and_nothing_else(run: RunFolder, bucket: Any) -> None:
    write_folder(run.path / "checkpoints/best.ckpt", 3)
    write_checkpoint(run.path / "checkpoints/last.ckpt", 4)
    address = f"s3://{BUCKET}/mine/{run.id}"
    lines = [f"upload    {n}.ckpt, step {s}, to {address}" for n, s in BOTH]
    assert upload_missing(run.path) == [*lines, f"upload    derived.yaml, config.yaml, run.json, to {address}/run/"]
    assert upload_missing(run.path) == []
    write_checkpoint(run.path / "checkpoints/last.ckpt", 5)
    assert upload_missing(run.path) == [f"upload    last.ckpt, step 5, to {address}"]
    assert len(list_objects(bucket)) == 2 + 1 + 4 + 3  # two documents, a file, a folder of four; the run's own files


def test_a_done_run_says_how_to_upload_what_is_missing(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(run.path / "checkpoints/last.ckpt", 4)
    run.seal_run("done")
    assert show("checkpoints", run) == 0
    printed = capsys.readouterr().out
    assert f"the run is done: there is nothing to resume; mlscale runs send {run.id} uploads what is missing" in printed
    assert "not uploaded: last.ckpt" in printed
    assert show("send", run, "output=json") == 0
    assert json.loads(capsys.readouterr().out)["uploaded"] == 2
    assert show("send", run) == 0
    assert f"nothing of {run.path.name} waits to be sent" in capsys.readouterr().err
    show("checkpoints", run)
    printed = capsys.readouterr().out
    assert "the run is done: there is nothing to resume\n" in printed
    assert "not uploaded" not in printed


def test_the_folder_is_shown_where_the_store_is_down(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(run.path / "checkpoints/last.ckpt", 4)
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    assert show("checkpoints", run, "output=json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [checkpoint["step"] for checkpoint in document["checkpoints"]] == [4]
    store = document["store"]
    assert (store["address"], store["checkpoints"]) == (f"s3://{BUCKET}/mine/{run.id}", [])
    assert store["error"].startswith(f"checkpoints can't be read from {store['address']}: the store does not answer")
    assert show("checkpoints", run) == 0
    assert store["error"] in capsys.readouterr().out
    (run.path / "checkpoints/last.ckpt").unlink()
    show("checkpoints", run)
    assert "has no checkpoints on this machine" in capsys.readouterr().out


def test_a_store_that_is_down_can_not_be_read_or_written(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.seal_run("diverged")
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    for call, verb in (
        (lambda: restore_missing(run.path, "best"), "read from"),
        (lambda: upload_missing(run.path), "written to"),
        (lambda: send_pending(run), "written to"),
    ):
        with pytest.raises(MLScaleError) as caught:
            call()
        error = caught.value
        assert error.what == f"checkpoints can't be {verb} s3://{BUCKET}/mine/{run.id}: the store does not answer"
        assert (error.exit, error.where) == (5, "run.json: checkpoint_store")
        # The address of a run is not a setting, and who has credentials is not asked for them.
        assert ("AWS_ENDPOINT_URL" in error.fix, "run.json" in error.fix, "AWS_PROFILE" in error.fix) == (
            True,
            False,
            False,
        )


def test_credentials_are_asked_for_where_the_store_refuses() -> None:
    error = create_access_error("s3://b/a", "run.json: checkpoint_store", PermissionError("Access Denied"))
    assert (error.what, error.fix.partition("=")[0]) == (
        "checkpoints can't be read from s3://b/a",
        "export AWS_PROFILE",
    )
    error = create_access_error("s3://b/a", "run.json: checkpoint_store", FileNotFoundError("no such bucket"))
    assert (error.what, "run.json" in error.fix) == ("the bucket of s3://b/a does not exist", False)


@pytest.mark.parametrize(("typed", "address"), [("s3://", "s3://"), ("s3://b/", "s3://b"), ("s3://b/a//", "s3://b/a")])
def test_slashes_at_the_end_do_not_count(typed: str, address: str) -> None:
    assert find_checkpoint_address(OmegaConf.create({"callbacks": {"checkpoint": {"dirpath": typed}}})) == address
