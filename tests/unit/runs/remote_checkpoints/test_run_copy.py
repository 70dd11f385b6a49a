"""A run that is opened from its object store: its folder as it was, and nothing that others have put there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlscale.assembly.remote_checkpoints import restore_unfinished_run
from mlscale.errors import MLScaleError
from mlscale.runs.find import find_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.ownership import explain_unproven
from mlscale.runs.remote_checkpoints.run_copy import store_run_files
from mlscale.runs.remote_checkpoints.run_store import open_run_store, restore_missing, store_ended_run
from mlscale.runs.remote_checkpoints.store_access import open_store
from mlscale.versions.model_reference import resolve_reference
from tests.object_store import BUCKET
from tests.unit.runs.conftest import CONFIG
from tests.unit.runs.remote_checkpoints.conftest import write_checkpoint

ADDRESS = f"s3://{BUCKET}/mine"


@pytest.fixture
def run(start: Callable[..., RunFolder], bucket: Any) -> RunFolder:
    """A run with its files in a store."""
    made = start()
    made.update_document(checkpoint_store=f"{ADDRESS}/{made.id}")
    (made.path / "logs/metrics.csv").write_text("step,loss\n1,0.5\n")
    store_ended_run(made.path)
    return made


def read_files(run: RunFolder) -> dict[str, bytes]:
    return {str(path.relative_to(run.path)): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_a_run_is_opened_by_its_address(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"{ADDRESS}/{run.id}"
    opened = find_run(address, tmp_path / "other")
    assert opened.path == tmp_path / "other" / run.path.parent.name / run.path.name
    assert read_files(opened) == read_files(run)
    assert explain_unproven(opened.path) == explain_unproven(run.path)
    assert f"download  the run {run.path.name}, from {address}" in capsys.readouterr().err
    (opened.path / "notes.txt").write_text("mine")
    assert find_run(f"{address}/", tmp_path / "other") == opened
    assert resolve_reference(address, runs_dir=tmp_path / "other").run == opened.path
    assert (opened.path / "notes.txt").exists()
    assert [path.name for path in opened.path.parent.iterdir()] == [opened.path.name]


@pytest.mark.parametrize("name", ["last", "id", "folder"])
def test_an_address_never_means_another_run_of_this_machine(name: str, run: RunFolder) -> None:
    names = {"last": "last", "id": run.id, "folder": run.path.name}
    with pytest.raises(MLScaleError, match="no run at this address"):
        find_run(f"s3://{BUCKET}/other/{names[name]}", run.path.parents[1])


def test_a_copied_bucket_is_used_from_then_on(run: RunFolder, bucket: Any, tmp_path: Path) -> None:
    for name in ("run.json", "config.yaml", "derived.yaml"):
        source = {"Bucket": BUCKET, "Key": f"mine/{run.id}/run/{name}"}
        bucket.copy_object(Bucket=BUCKET, Key=f"copy/{run.id}/run/{name}", CopySource=source)
    opened = find_run(f"s3://{BUCKET}/copy/{run.id}", tmp_path / "other")
    assert opened.run["checkpoint_store"] == f"s3://{BUCKET}/copy/{run.id}"


def test_only_what_has_changed_is_stored(run: RunFolder) -> None:
    store = open_run_store(run.path)
    assert store is not None
    assert store_run_files(store, run.path) == []
    run.seal_run("failed")
    assert store_run_files(store, run.path) == ["manifest.json"]
    run.start_attempt()  # the seal of an earlier attempt is removed
    assert store_run_files(store, run.path) == ["run.json"]
    assert "manifest.json" not in store.list_run_files()
    assert store.remove_incomplete() == 0


def test_foreign_files_are_left_out(run: RunFolder, bucket: Any, tmp_path: Path) -> None:
    names = ("../../evil.json", "results/../../evil.json", "../results/evil.json", "../../x/results/evil.html")
    for name in (*(f"run/{name}" for name in names), "run/.bashrc", "run/results/a/b.json", "run/"):
        bucket.put_object(Bucket=BUCKET, Key=f"mine/{run.id}/{name}", Body=b"{}")
    opened = find_run(f"{ADDRESS}/{run.id}", tmp_path / "other")
    assert read_files(opened) == read_files(run)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "changes", [{"id": "../../x"}, {"created": "../x"}, {"created": None}, {"name": None, "id": 3}]
)
def test_a_corrupt_run_is_refused(changes: dict[str, Any], run: RunFolder, bucket: Any, tmp_path: Path) -> None:
    body = json.dumps({**run.run, **changes}).encode()
    bucket.put_object(Bucket=BUCKET, Key=f"mine/{run.id}/run/run.json", Body=body)
    with pytest.raises(MLScaleError, match=r"run\.json in the object store is corrupt"):
        find_run(f"{ADDRESS}/{run.id}", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_address_without_a_run_names_those_below(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="no run at this address") as caught:
        find_run(ADDRESS, tmp_path / "other")
    assert (caught.value.fix, caught.value.exit) == (f"{ADDRESS}/{run.id}", 2)


def test_a_store_that_is_down_is_reported(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(MLScaleError, match="can't be read from") as caught:
        find_run(f"{ADDRESS}/{run.id}", tmp_path / "other")
    assert caught.value.exit == 5
    (line,) = store_ended_run(run.path)
    assert f"mlscale runs send {run.id} uploads it" in line


def test_an_unfinished_run_is_found_in_the_store(run: RunFolder, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    cfg = OmegaConf.create({"callbacks": {"checkpoint": {"dirpath": ADDRESS}}, "runs_dir": str(tmp_path / "other")})
    assert restore_unfinished_run(cfg, CONFIG + "more: 1\n", None) is None
    assert restore_unfinished_run(cfg, CONFIG, "other code") is None
    found = restore_unfinished_run(cfg, CONFIG, None)
    assert found is not None
    assert found.id == run.id
    run.seal_run("done")
    store_ended_run(run.path)
    assert restore_unfinished_run(cfg, CONFIG, None) is None


def test_a_lost_best_is_downloaded_where_another_one_is_left(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.path / "checkpoints"
    store = open_store(f"{ADDRESS}/{run.id}", "here")
    for name in ("best", "last", "step=4"):
        store.put_checkpoint(f"{name}.ckpt", write_checkpoint(folder / f"{name}.ckpt", 4, kind=name))
    (folder / "best.ckpt").unlink()
    (folder / "step=4.ckpt").unlink()
    restore_missing(run.path, "last")
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    restore_missing(run.path, "best")
    restore_missing(run.path, "step=4")
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt", "step=4.ckpt"}
    (folder / "best.ckpt").unlink()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    restore_missing(run.path, "best")  # a warning: `last.ckpt` is left
