"""A run's checkpoint as a version."""

from pathlib import Path
from typing import IO, Any, cast

import pytest
import torch

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.folder import RunFolder
from mlscale.versions import LocalRegistry
from mlscale.versions.from_run import publish_run


def trained(folder: Path, *names: str, weight: float = 1.0, status: str | None = "done", **known: Any) -> RunFolder:
    """A run with real checkpoints of those names, sealed with `status`."""
    run = RunFolder.create(
        folder / "runs", "resnet", command="train", config_yaml="seed: 0\n", derived={"channels": 1}, data_version="d1",
        metric="val/accuracy", mode="max", **known,
    )  # fmt: skip
    for name in names:
        writer = AtomicCheckpointWriter(run.path / "checkpoints" / f"{name}.ckpt")
        torch.save({"state_dict": {"w": torch.full((3,), weight)}}, cast(IO[bytes], writer))
        writer.commit_checkpoint(CheckpointRecord("best", 3, 1))
    if status:
        run.seal_run(status, metrics={"best_val/accuracy": 0.9, "val/accuracy": 0.8})
    return run


def test_what_is_kept(registry: LocalRegistry, tmp_path: Path) -> None:
    run = trained(tmp_path, "best", "last", loggers={"wandb": "abc"})
    done = publish_run(registry, run, notes="why, with password=hunter2-and-more", aliases=("challenger",))
    version = registry.fetch("resnet@challenger")
    assert (done.new, done.version, version.kind) == (True, version, "checkpoint")
    assert sorted(version.files) == ["config.yaml", "derived.yaml", "model.ckpt"]
    content = torch.load(version.payload / "model.ckpt", weights_only=True)
    assert content["state_dict"]["w"].tolist() == [1.0] * 3
    assert (version.payload / "config.yaml").read_text() == "seed: 0\n"
    assert (version.value, version.data_version, version.parent) == (0.9, "d1", None)
    assert version.run is not None
    assert (version.run["id"], version.run["path"], version.run["loggers"]) == (run.id, str(run.path), {"wandb": "abc"})
    assert "hunter2" not in version.notes
    assert publish_run(registry, run).new is False
    run.discard_run()
    assert registry.fetch("resnet:v1").number == 1  # it needs the run no more


def test_the_parent_is_the_version_that_the_parent_run_made(registry: LocalRegistry, tmp_path: Path) -> None:
    first = trained(tmp_path, "best")
    publish_run(registry, first, name="other")
    publish_run(registry, first)
    second = trained(tmp_path, "best", weight=2.0, parent=first.id)
    assert publish_run(registry, second).version.parent == "resnet:v1"
    third = trained(tmp_path, "best", weight=3.0, parent="000000000000")
    assert publish_run(registry, third).version.parent is None


def test_which_checkpoint(registry: LocalRegistry, tmp_path: Path) -> None:
    run = trained(tmp_path, "last", status="interrupted")
    version = publish_run(registry, run, name="mine").version  # it never validated: there is no best one
    assert version.ref == "mine:v1"
    assert version.run is not None
    assert (version.run["checkpoint"], version.run["status"]) == ("last.ckpt", "interrupted")
    with pytest.raises(MLScaleError, match="no checkpoint 'best'"):
        publish_run(registry, trained(tmp_path))


@pytest.mark.parametrize("status", [None, "failed", "diverged"])
def test_a_run_that_did_not_end_well(registry: LocalRegistry, tmp_path: Path, status: str | None) -> None:
    run = trained(tmp_path, "best", status=status)
    with pytest.raises(MLScaleError, match=f"is {status or 'running'}"):
        publish_run(registry, run)
    assert not registry.root.exists()


@pytest.mark.parametrize(("damage", "what"), [(slice(0, 300), "can't be published"), (None, "was sealed with")])
def test_a_run_that_was_changed(registry: LocalRegistry, tmp_path: Path, damage: slice | None, what: str) -> None:
    run = trained(tmp_path, "best")
    if damage:
        path = run.path / "checkpoints" / "best.ckpt"
        path.write_bytes(path.read_bytes()[damage])
    else:
        (run.path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(MLScaleError, match=what):
        publish_run(registry, run)
    assert not registry.root.exists()


def test_the_encoder_of_its_data_comes_with_it(registry: LocalRegistry, tmp_path: Path) -> None:
    run = trained(tmp_path, "best", status=None)
    run.write_json("encoder.json", {"kind": "text"})
    run.seal_run("done", metrics={"best_val/accuracy": 0.9})
    assert sorted(publish_run(registry, run).version.files)[2:] == ["encoder.json", "model.ckpt"]
    (run.path / "encoder.json").write_text("{}")
    with pytest.raises(MLScaleError, match=r"encoder\.json is not what the run was sealed with"):
        publish_run(registry, run)
