"""A user's own runs are known by a proof that editing, another user and another machine break, and nothing else."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.runs import ownership as own
from mlscale.runs.code.code_snapshot import take_snapshot
from mlscale.runs.folder import RunFolder
from tests.conftest import NoPrivileges

Start = Callable[..., RunFolder]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's state folder, empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "mlscale"


def test_a_run_is_its_creators_wherever_it_is_moved(start: Start, tmp_path: Path, state: Path) -> None:
    run = start(code=take_snapshot(tmp_path))
    assert own.explain_unproven(run.path) == ""
    assert (state / "run.key").stat().st_mode & 0o777 == 0o600
    run.path.rename(tmp_path / "moved")
    assert own.explain_unproven(tmp_path / "moved") == ""


@pytest.mark.parametrize("name", own.PROVEN)
def test_whoever_edits_a_file_breaks_the_proof(start: Start, tmp_path: Path, name: str) -> None:
    run = start(code=take_snapshot(tmp_path))
    (run.path / name).write_bytes((run.path / name).read_bytes() + b"\n")
    assert own.explain_unproven(run.path) == f"its {name} is not the one that you created it with"


@pytest.mark.parametrize("name", own.PROVEN)
def test_files_of_another_run_break_it(start: Start, tmp_path: Path, name: str) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/model.py").write_text("SIZE = 1\n")
    run = start(code=take_snapshot(tmp_path / "code"))
    (tmp_path / "code/model.py").write_text("SIZE = 2\n")
    other = start(config_yaml="seed: 2\n", derived={"threads": 3}, code=take_snapshot(tmp_path / "code"))
    (run.path / name).write_bytes((other.path / name).read_bytes())
    assert name in own.explain_unproven(run.path)


def test_a_code_snapshot_that_was_added_breaks_it(start: Start) -> None:
    run = start()
    (run.path / "code.tar.gz").write_bytes(b"new")
    assert "code.tar.gz" in own.explain_unproven(run.path)


def test_a_proof_of_another_run_is_none(start: Start) -> None:
    run, other = start(), start(name="other")
    run.update_document(proof=other.run["proof"])
    assert own.explain_unproven(run.path)
    run.update_document(id=other.id)
    assert own.explain_unproven(run.path)  # its derived.yaml names another folder


@pytest.mark.parametrize("proof", [None, {}, [], "x", {"tags": 1}, {"key": 1, "tags": {"config.yaml": 7}}])
def test_a_proof_that_is_none_is_no_error(start: Start, proof: object) -> None:
    run = start()
    run.update_document(proof=proof)
    assert own.explain_unproven(run.path)


def test_another_user_has_another_key(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, theirs = start(), tmp_path / "theirs"
    monkeypatch.setenv("XDG_STATE_HOME", str(theirs))
    assert own.explain_unproven(run.path).startswith("whether you created it can't be checked")
    assert not theirs.exists()  # to check makes no key
    start()
    assert own.explain_unproven(run.path) == "it was created by another user, or on another machine"


@pytest.mark.parametrize("with_another", [False, True])
def test_the_keys_of_some_runs_travel(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_another: bool
) -> None:
    run, another, other = start(), start(), start()
    key = own.export_run_keys([another.id, run.id] if with_another else [run.id])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "node"))
    monkeypatch.setenv(own.VARIABLE, key)
    assert own.explain_unproven(run.path) == ""
    assert own.explain_unproven(other.path)
    assert (own.explain_unproven(another.path) == "") is with_another
    run.update_config("seed: 1\n", {"world_size": 2})  # an attempt on that machine
    assert own.explain_unproven(run.path) == ""
    monkeypatch.delenv(own.VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert own.explain_unproven(run.path) == ""
    monkeypatch.setenv(own.VARIABLE, f"{run.id}:no key")
    assert "holds no key" in own.explain_unproven(run.path)


def test_an_attempt_that_is_killed_between_its_files_stays_ones_own(start: Start) -> None:
    run = start()
    before = (run.path / "derived.yaml").read_bytes()
    for number in range(10):
        run.update_config(f"seed: 1\nnotes: {number}\n", {"world_size": 2})
        assert own.explain_unproven(run.path) == ""
    after = (run.path / "derived.yaml").read_bytes()
    run.update_config("seed: 1\n", {"world_size": 3})
    (run.path / "derived.yaml").write_bytes(after)  # config.yaml was replaced, derived.yaml was not yet
    assert own.explain_unproven(run.path) == ""
    assert before != after


def test_to_resume_a_foreign_run_does_not_make_it_ones_own(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
    start()
    run.update_config("seed: 1\n", {"world_size": 2})
    assert own.explain_unproven(run.path)


def _first_key(folder: str) -> str:
    os.environ["XDG_STATE_HOME"] = folder
    return own.export_run_keys(["x"]) if own.create_proof("x", {"config.yaml": b""}) else "none"


def test_many_processes_make_one_key(tmp_path: Path) -> None:
    # Torch's launcher may have left a handler of SIGTERM in this process, with which a pool can't end its workers.
    handled = (signal.SIGTERM, signal.SIG_DFL)
    with multiprocessing.get_context("fork").Pool(8, initializer=signal.signal, initargs=handled) as pool:
        keys = pool.map(_first_key, [str(tmp_path / "new")] * 32, chunksize=1)
        pool.close()
        pool.join()
    assert len(set(keys)) == 1
    assert [path.name for path in (tmp_path / "new/mlscale").iterdir()] == ["run.key"]


@pytest.mark.parametrize("where", ["read-only", "a file", "no home", "damaged", "open to others", "not ASCII"])
def test_without_a_key_a_run_starts_and_is_not_ones_own(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Path, no_privileges: NoPrivileges, where: str
) -> None:
    if where == "read-only":
        (tmp_path / "ro").mkdir()
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "ro"))
        with no_privileges(tmp_path, read_only=tmp_path / "ro"):
            run, why = start(), own.explain_missing_key()
        assert "Permission denied" in why
    elif where == "a file":
        (tmp_path / "state").write_text("")
        run, why = start(), own.explain_missing_key()
    elif where == "no home":
        monkeypatch.setenv("XDG_STATE_HOME", "relative")
        monkeypatch.setattr(Path, "home", _no_home)
        run, why = start(), own.explain_missing_key()
    else:
        start()
        content = {"damaged": "00\n", "not ASCII": "ä" * 64}.get(where, (state / "run.key").read_text())
        (state / "run.key").write_text(content)
        (state / "run.key").chmod(0o666 if where == "open to others" else 0o600)
        run, why = start(), own.explain_missing_key()
    assert why
    assert "proof" not in run.run
    assert own.explain_unproven(run.path)


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_version_made_of_it_carries_the_proof(start: Start, tmp_path: Path) -> None:
    from mlscale.versions import LocalRegistry
    from mlscale.versions.from_run import publish_run
    from tests.unit.runs.checkpoint_files.saved_checkpoints import save

    run = start()
    save(run.path / "checkpoints/best.ckpt", 3)
    run.seal_run("done")
    version = publish_run(LocalRegistry(tmp_path / "registry"), run).version
    assert own.explain_unproven(version.payload) == ""
    (version.payload / "config.yaml").unlink()
    (version.payload / "config.yaml").write_text("seed: 3\n")
    assert "config.yaml" in own.explain_unproven(version.payload)
