"""`mlscale runs gc` and `mlscale runs du`: what is removed, and what must never be."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mlscale.commands.runs.entry import main
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.folder import RunFolder
from mlscale.runs.lock import hold_run_lock
from mlscale.runs.run_reader import MANIFEST, RUN
from mlscale.versions import LocalRegistry
from mlscale.versions.from_run import publish_run
from tests.conftest import NoPrivileges

Runs = Callable[..., int]
ALL = {"best.ckpt", "last.ckpt", "step=10.ckpt", "step=20.ckpt"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the runs."""
    return tmp_path / "runs"


@pytest.fixture
def runs(root: Path, tmp_path: Path) -> Runs:
    """Run `mlscale runs …` on that folder, with a registry beside it."""
    return lambda command, *words: main([command, *words, f"runs_dir={root}", f"registry.root={tmp_path / 'registry'}"])


def save(run: RunFolder, name: str, record: CheckpointRecord) -> Path:
    """Write one checkpoint of a run."""
    path = run.path / "checkpoints" / f"{name}.ckpt"
    writer = AtomicCheckpointWriter(path)
    torch.save({"weights": torch.arange(1000)}, writer)  # type: ignore[arg-type]  # a file is what writes
    writer.commit_checkpoint(record)
    return path


def made(root: Path, *, status: str | None = "done", config: str = "seed: 0\n", init: str | None = None) -> RunFolder:
    """A run with four checkpoints; without a status its process, which is not there, has never sealed it."""
    run = RunFolder.create(
        root, "resnet", command="train", config_yaml=config, metric="val/accuracy", mode="max",
        init={"checkpoint": init, "sha256": "", "run": None} if init else None,
    )  # fmt: skip
    save(run, "step=10", CheckpointRecord("periodic", 10, 1))
    save(run, "best", CheckpointRecord("best", 15, 1, metric="val/accuracy", value=0.9))
    save(run, "step=20", CheckpointRecord("periodic", 20, 2))
    save(run, "last", CheckpointRecord("last", 30, 3))
    if status:
        run.seal_run(status, metrics={"best_val/accuracy": 0.9})
    else:
        attempt = {**run.run["attempts"][-1], "pid": 2**22 + 1}  # above the largest id of a process
        run.update_document(attempts=[attempt])
    return run


def names(run: RunFolder) -> set[str]:
    """The files that are left."""
    return {path.name for path in run.checkpoints}


def test_what_keep_does_not_name_is_removed(root: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(root)
    assert runs("gc", "yes=true") == 0
    assert names(run) == {"best.ckpt", "last.ckpt"}
    assert capsys.readouterr().out.splitlines()[-1].startswith("removed 2 checkpoints, ")
    # The seal knows: nothing is missing from it, and nothing else has changed.
    assert run.find_changed_artefacts() == []
    assert "checkpoints/best.ckpt" in (run.manifest or {})["artefacts"]
    assert "checkpoints/step=10.ckpt" not in (run.manifest or {})["artefacts"]
    assert runs("gc") == 0  # nothing is left to confirm


def test_names_and_runs_can_be_chosen(root: Path, runs: Runs) -> None:
    chosen, other = made(root), made(root)
    assert runs("gc", chosen.id, "keep=[step=10]", "keep=best", "yes=true") == 0
    assert names(chosen) == {"best.ckpt", "step=10.ckpt"}
    assert names(other) == ALL
    assert runs("gc", chosen.id, "keep=[]", "yes=true") == 0
    assert names(chosen) == set()


def test_a_dry_run_removes_nothing(root: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(root)
    assert runs("gc", "dry_run=true", "output=json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [Path(entry["path"]).name for entry in document["removed"]] == ["step=10.ckpt", "step=20.ckpt"]
    assert document["bytes"] == sum((run.path / "checkpoints" / f"step={n}.ckpt").stat().st_size for n in (10, 20))
    assert {Path(path).name for path in document["retained"]} == {"best.ckpt", "last.ckpt"}
    assert names(run) == ALL


def test_without_a_terminal_it_must_be_confirmed(root: Path, runs: Runs) -> None:
    run = made(root)
    with pytest.raises(MLScaleError, match="can't be undone") as error:
        runs("gc", "keep=[best]")
    assert error.value.fix.endswith(f"mlscale runs gc 'keep=[best]' runs_dir={root} yes=true")
    assert names(run) == ALL


def test_a_typing_error_removes_nothing(root: Path, runs: Runs) -> None:
    run = made(root)
    with pytest.raises(MLScaleError, match="no run has a checkpoint 'lats'") as error:
        runs("gc", "keep=[best,lats]", "yes=true")
    assert error.value.fix == "keep=[best,last]"
    assert names(run) == ALL


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_what_a_version_was_made_of_stays(
    root: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    run = made(root)
    registry = LocalRegistry(tmp_path / "registry")
    publish_run(registry, run, checkpoint=checkpoint)
    registry.promote("resnet:v1")
    assert runs("gc", "keep=[]", "yes=true", "output=json") == 0
    assert names(run) == {f"{checkpoint}.ckpt"}
    assert list(json.loads(capsys.readouterr().out)["retained"].values()) == ["version resnet:v1 @champion"]


def test_a_registry_that_only_the_run_names_counts(
    root: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "models of März"
    run = made(root, config=f"registry:\n  root: {elsewhere}\n")
    publish_run(LocalRegistry(elsewhere), run)
    assert runs("gc", "keep=[]", "yes=true") == 0
    assert names(run) == {"best.ckpt"}


def test_a_version_that_can_not_be_read_stops_it(root: Path, runs: Runs, tmp_path: Path) -> None:
    run = made(root)
    version = publish_run(LocalRegistry(tmp_path / "registry"), run).version
    record = version.path / "version.json"
    record.chmod(0o600)
    record.write_text("{")
    with pytest.raises(MLScaleError, match="the record of the version resnet:v1 can't be read") as error:
        runs("gc", "yes=true")
    assert "none is removed" in error.value.why
    assert names(run) == ALL


@pytest.mark.parametrize("status", [None, "interrupted", "failed"])
def test_a_run_that_can_be_resumed_keeps_its_latest(root: Path, runs: Runs, status: str | None) -> None:
    run = made(root, status=status)
    assert runs("gc", "keep=[best]", "yes=true") == 0
    assert names(run) == {"best.ckpt", "last.ckpt"}


def test_the_latest_is_one_that_can_be_read(root: Path, runs: Runs) -> None:
    run = made(root, status=None)
    last = run.path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    assert runs("gc", "keep=[best]", "yes=true") == 0
    assert names(run) == {"best.ckpt", "step=20.ckpt"}


def test_a_torn_one_is_not_all_that_is_kept(root: Path, runs: Runs) -> None:
    run = made(root)
    last = run.path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    assert runs("gc", "keep=[last]", "yes=true") == 0
    assert names(run) == {"last.ckpt", "step=20.ckpt"}


def test_a_run_that_trains_is_left_alone(root: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder.create(root, "resnet", command="train", config_yaml="seed: 0\n")  # by this process
    for step in (1, 2):
        save(run, f"step={step}", CheckpointRecord("periodic", step, 0))
    assert runs("gc", "yes=true") == 0
    assert names(run) == {"step=1.ckpt", "step=2.ckpt"}
    assert f"left alone: {run.id}: it is running" in capsys.readouterr().out


def test_a_run_that_another_process_works_on_is_left_alone(root: Path, runs: Runs) -> None:
    run = made(root)
    with hold_run_lock(run), pytest.raises(MLScaleError, match="another process is working on the run"):
        runs("gc", "yes=true")
    assert names(run) == ALL


def test_what_an_unfinished_run_starts_from_stays(root: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    first = made(root)
    second = made(root, status="interrupted", init=str(first.path / "checkpoints" / "step=10.ckpt"))
    assert runs("gc", "yes=true") == 0
    assert names(first) == ALL
    assert f"left alone: {first.id}: the run {second.id}, which is not finished, needs it" in capsys.readouterr().out
    second.seal_run("done")
    assert runs("gc", "yes=true") == 0
    assert names(first) == {"best.ckpt", "last.ckpt"}


def test_a_kill_between_leaves_an_intact_seal(root: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(root)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", _die)
        with pytest.raises(KeyboardInterrupt):
            runs("gc", "yes=true")
    assert names(run) == ALL
    assert run.find_changed_artefacts() == []
    assert runs("gc", "yes=true") == 0
    assert names(run) == {"best.ckpt", "last.ckpt"}


def test_a_folder_that_may_not_be_written_to_stays(root: Path, runs: Runs, no_privileges: NoPrivileges) -> None:
    run = made(root)
    with no_privileges(root, read_only=run.path), pytest.raises(MLScaleError) as caught:
        runs("gc", "yes=true")
    assert names(run) == ALL
    # Another runs_dir would mean other runs, and remove theirs.
    assert caught.value.fix.startswith(f"chmod -R u+w {run.path}; ")


def _die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_du_counts_every_file_once(root: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = made(root), made(root)
    save(large, "step=30", CheckpointRecord("periodic", 30, 3))
    (large.path / "servable").mkdir()
    (large.path / "servable" / "model.onnx").write_bytes(b"x" * 5000)
    assert runs("du", "output=json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [usage["id"] for usage in document["runs"]] == [large.id, small.id]
    for usage, run in zip(document["runs"], (large, small), strict=True):
        files = [path for path in run.path.rglob("*") if path.is_file()]
        assert usage["total"] == sum(path.stat().st_size for path in files)
        assert usage["checkpoints"] == sum(path.stat().st_size for path in run.checkpoints)
        assert usage["rest"] >= (run.path / RUN).stat().st_size + (run.path / MANIFEST).stat().st_size
    assert [usage["servables"] for usage in document["runs"]] == [5000, 0]
    assert runs("gc", "dry_run=true", "output=json") == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == document["removable"]
    assert runs("du", "limit=1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # heads, a rule, one run, the total of both
    assert lines[-1].startswith("2 runs, ")
    assert "mlscale runs gc frees" in lines[-1]
