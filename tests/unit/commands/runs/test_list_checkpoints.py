"""`mlscale runs checkpoints`: what a run has saved, and whether it is whole."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mlscale.cli import main as cli
from mlscale.commands.completion.entry import complete_words
from mlscale.commands.runs.entry import main
from mlscale.config.schema.roots import find_roots
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.folder import RunFolder

Listed = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has saved three checkpoints, and one of a user's own callback elsewhere."""
    made = RunFolder.create(tmp_path / "runs", "resnet", command="train", config_yaml="seed: 0\n")
    saved = {
        "checkpoints/best": CheckpointRecord("best", 20, 2, metric="val/accuracy", value=0.9917),
        "checkpoints/last": CheckpointRecord("last", 40, 4),
        "checkpoints/step=30": CheckpointRecord("periodic", 30, 3),
        "logs/own/weights": CheckpointRecord("other", 10, 1, resumable=False),
    }
    for name, record in saved.items():
        path = made.path / f"{name}.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = AtomicCheckpointWriter(path)
        torch.save({"weights": torch.arange(1000)}, writer)  # type: ignore[arg-type]  # a file is what writes
        writer.commit_checkpoint(record)
    return made


@pytest.fixture
def listed(run: RunFolder, tmp_path: Path) -> Listed:
    """Run `mlscale runs checkpoints last`."""
    return lambda *words: main(["checkpoints", "last", f"runs_dir={tmp_path / 'runs'}", *words])


def test_all_are_whole(listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "kind", "step", "epochs", "metric", "size", "saved", "digest"]
    assert [line.split()[0] for line in lines[2:6]] == [
        "logs/own/weights.ckpt",
        "best.ckpt",
        "step=30.ckpt",
        "last.ckpt",
    ]
    assert [line.split()[-1] for line in lines[2:6]] == ["ok"] * 4
    assert "other, weights" in lines[2]
    assert "val/accuracy 0.9917" in lines[3]
    assert lines[6] == "the run resumes from last.ckpt"


@pytest.mark.parametrize(
    ("ending", "reported"),
    [
        ("done", "the run is done: there is nothing to resume"),
        ("diverged", "the run has diverged: there is nothing to resume"),
        ("interrupted", "the run resumes from last.ckpt"),
        ("failed", "the run resumes from last.ckpt"),
    ],
)
def test_a_run_that_has_ended_well_resumes_from_nothing(
    run: RunFolder, listed: Listed, ending: str, reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run.seal_run(ending)
    assert listed() == 0
    assert capsys.readouterr().out.splitlines()[-1] == reported


def test_damaged_ones(run: RunFolder, listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(run.path / "checkpoints/last.ckpt", 500)
    altered = run.path / "checkpoints/step=30.ckpt"
    content = altered.read_bytes()
    altered.write_bytes(content[:900] + b"\xff" + content[901:])
    torch.save({}, run.path / "checkpoints/own.ckpt")
    assert listed() == 2
    reported = capsys.readouterr().out
    rows = {line.split()[0]: line.split("  ")[-1].strip() for line in reported.splitlines()[2:7]}
    assert rows == {
        "logs/own/weights.ckpt": "ok", "best.ckpt": "ok", "step=30.ckpt": "altered", "last.ckpt": "torn",
        "own.ckpt": "no digest",
    }  # fmt: skip
    assert f"{altered}: its content is not what was written" in reported
    assert "the run resumes from best.ckpt" in reported


def test_json(run: RunFolder, listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    (run.path / "checkpoints/last.ckpt").write_bytes(b"half")
    assert listed("output=json") == 2
    document = json.loads(capsys.readouterr().out)
    assert document["latest_valid"] == str(run.path / "checkpoints/step=30.ckpt")
    found = {Path(each["path"]).stem: each for each in document["checkpoints"]}
    assert found["best"]["value"] == 0.9917
    assert found["best"]["state"] == "ok"
    assert found["last"] == {
        "path": str(run.path / "checkpoints/last.ckpt"), "bytes": 4, "kind": None, "step": None, "epoch": None,
        "metric": None, "value": None, "time": None, "resumable": None, "state": "torn",
    }  # fmt: skip


def test_a_run_without_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder.create(tmp_path / "runs", "none", command="train", config_yaml="seed: 0\n")
    assert main(["checkpoints", "last", f"runs_dir={tmp_path / 'runs'}"]) == 0
    assert "has no checkpoints" in capsys.readouterr().out


def test_help_and_completion(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["runs", "checkpoints", "--help"]) == 0
    assert "mlscale runs checkpoints last output=json" in capsys.readouterr().out
    assert complete_words(["runs", "ch"], find_roots()) == ["checkpoints"]
    assert complete_words(["runs", "checkpoints", "l"], find_roots()) == ["last"]
