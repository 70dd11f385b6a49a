"""The code snapshot: what git does not ignore, capped, scanned, quick, and never in the way of a run."""

import io
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from mlscale.export.servable import load
from mlscale.runs.code import code_snapshot
from mlscale.runs.code import code_snapshot as module
from mlscale.runs.code.code_snapshot import DIFF, CodeSnapshot, take_snapshot
from mlscale.targets.triton.triton_target import TritonTarget
from mlscale.versions import LocalRegistry
from tests.made_servables import make_token_servable
from tests.tokenizer_files import save_words


def _git(folder: Path, *words: str) -> None:
    who = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
    ]
    subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    (tmp_path / "model.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("ignored.py\n/data/\n")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def contents(snapshot: CodeSnapshot) -> dict[str, bytes]:
    """The files of a snapshot's archive."""
    with tarfile.open(fileobj=io.BytesIO(snapshot.archive)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def test_work_tree(repository: Path) -> None:
    clean = take_snapshot(repository)
    assert (clean.dirty, clean.branch, clean.files) == (False, "main", (".gitignore", "model.py"))
    (repository / "model.py").write_text("x = 2\n")
    (repository / "new.py").write_text("y = 1\n")
    (repository / "ignored.py").write_text("z = 1\n")
    (repository / "data").mkdir()
    (repository / "data" / "a.yaml").write_text("z: 1\n")
    dirty = take_snapshot(repository)
    assert dirty.dirty
    assert dirty.commit == clean.commit
    assert set(contents(dirty)) == {".gitignore", "model.py", "new.py", DIFF}
    assert b"+x = 2" in contents(dirty)[DIFF]
    assert dirty.digest != clean.digest
    _git(repository, "add", ".")
    _git(repository, "commit", "-q", "-m", "second")
    assert take_snapshot(repository).digest == dirty.digest  # the same code, committed


def test_deterministic(repository: Path) -> None:
    assert take_snapshot(repository).archive == take_snapshot(repository).archive


def test_secrets_are_masked_and_reported(repository: Path) -> None:
    (repository / "model.py").write_text('api_key = "hunter22"\nx = 1\n')
    (repository / "conf.yaml").write_text("password: hunter22\n")
    (repository / ".env").write_text("A=hunter22\n")
    (repository / "id_rsa").write_text("hunter22\n")
    snapshot = take_snapshot(repository)
    assert not [name for name, content in contents(snapshot).items() if b"hunter22" in content]
    assert snapshot.masked == {"conf.yaml": 1, "model.py": 1, DIFF: 1}
    assert set(snapshot.skipped) == {".env", "id_rsa"}
    assert "move it to the environment" in snapshot.format_warnings()[0]


def test_made_up_secrets_of_tests_are_masked_without_a_word(repository: Path) -> None:
    (repository / "tests").mkdir()
    (repository / "tests/test_login.py").write_text("password = 'hunter22'\n")
    snapshot = take_snapshot(repository)
    assert b"hunter22" not in contents(snapshot)["tests/test_login.py"]
    assert snapshot.masked == {"tests/test_login.py": 1}
    assert snapshot.format_warnings() == []


def test_caps(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "a.txt").write_text("x" * (1 << 20) + "x")
    (repository / "b.bin").write_bytes(b"\0\1")
    (repository / "c.py").symlink_to("model.py")
    assert take_snapshot(repository).skipped == {
        "a.txt": "larger than 1 MiB", "b.bin": "binary", "c.py": "not a regular file",
    }  # fmt: skip
    monkeypatch.setattr(module, "TOTAL_BYTES", 20)
    assert "full" in take_snapshot(repository).skipped["model.py"]


def test_run_folders_are_no_code(repository: Path) -> None:
    before = take_snapshot(repository).digest
    run = repository / "runs" / "2026-01-01" / "a-1"
    run.mkdir(parents=True)
    for name in ("run.json", "derived.yaml", "config.yaml"):
        (run / name).write_text("a: 1\n")
    assert take_snapshot(repository).digest == before


@pytest.mark.parametrize("git", [True, False])
def test_servables_are_no_code(
    repository: Path, git: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not git:
        repository = tmp_path_factory.mktemp("plain")
        (repository / "model.py").write_text("a = 1\n")
    before = take_snapshot(repository)
    # An export to Triton holds the encoder's modules, next to the code that trained the model.
    code = repository / "models" / "digits" / "targets" / "triton" / "digits_encoder" / "1" / "model.py"
    code.parent.mkdir(parents=True)
    code.write_text("b = 2\n")
    (repository / "models" / "digits" / "servable.yaml").write_text("a: 1\n")
    (repository / "models" / "net.py").write_text("c = 3\n")
    after = take_snapshot(repository)
    assert set(after.files) - set(before.files) == {"models/net.py"}


@pytest.mark.parametrize("git", [True, False])
def test_models_copied_out_of_a_servable_are_no_code(
    repository: Path, git: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not git:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
        shutil.rmtree(repository / ".git")
    before = take_snapshot(repository)
    made, serving = tmp_path_factory.mktemp("made"), repository / "serving"
    servable = load(make_token_servable(made / "words", save_words(made / "tokenizer.json")))
    TritonTarget().build(servable, serving)
    assert {path.name for path in serving.iterdir()} > {"words", "words_encoder"}
    assert (take_snapshot(repository).files, take_snapshot(repository).digest) == (before.files, before.digest)
    # A model that somebody has written for the same server is code.
    for name, content in (("config.pbtxt", 'backend: "python"\n'), ("1/model.py", "a = 1\n")):
        (path := serving / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    own = {"serving/own/1/model.py"} | ({"serving/own/config.pbtxt"} if git else set())
    assert set(take_snapshot(repository).files) - set(before.files) == own


@pytest.mark.parametrize("git", [True, False])
def test_registries_are_no_code(
    repository: Path, git: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not git:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
        shutil.rmtree(repository / ".git")
    (repository / "versions.yaml").write_text("a: 1\n")
    before = take_snapshot(repository)
    registry, elsewhere = LocalRegistry(repository / "models" / "registry"), tmp_path_factory.mktemp("elsewhere")
    for name in ("config.yaml", "model.py"):
        (elsewhere / name).write_text("a: 1\n")
        registry.publish("resnet", {name: elsewhere / name}, kind="checkpoint", aliases=["champion"])
    after = take_snapshot(repository)
    assert (after.files, after.digest) == (before.files, before.digest)
    assert "versions.yaml" in after.files


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("a.py", "b.yaml", "c.txt", ".hidden/d.py", "venv/pyvenv.cfg", "venv/e.py", "pkg/f.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    snapshot = take_snapshot(tmp_path)
    assert set(snapshot.files) == {"a.py", "b.yaml", "pkg/f.py"}
    assert snapshot.commit is None


def test_a_huge_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(module, "FILES", 10)
    for number in range(30):
        (tmp_path / f"{number}.py").write_text("")
    snapshot = take_snapshot(tmp_path)
    assert (len(snapshot.files), snapshot.complete) == (10, False)
    assert "too large" in snapshot.format_warnings()[0]
    monkeypatch.setattr(module, "SECONDS", 0.0)
    assert take_snapshot(tmp_path).complete is False
    monkeypatch.setattr(module, "SECONDS", 0.2)
    started = time.perf_counter()
    take_snapshot("/")
    assert time.perf_counter() - started < 2


def test_a_large_folder_without_git_has_the_same_digest_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out is decided by numbers, not by how busy the machine is: `resume=auto` compares digests."""
    for folder in ("b", "a", "c"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            (tmp_path / folder / f"{number}.py").write_text(folder)
    monkeypatch.setattr(code_snapshot, "ENTRIES", 12)  # three folders, and the files of two of them
    snapshot = take_snapshot(tmp_path)
    assert not snapshot.complete
    assert snapshot.files == tuple(f"{folder}/{number}.py" for folder in "ab" for number in range(4))
    assert "too large" in snapshot.format_warnings()[0]
    assert take_snapshot(tmp_path).digest == snapshot.digest


def test_it_never_fails_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: Path) -> CodeSnapshot:
        raise RuntimeError("boom")

    monkeypatch.setattr(module, "_collect_code", broken)
    snapshot = take_snapshot(tmp_path)
    assert contents(snapshot) == {}
    assert snapshot.format_warnings() == ["code snapshot: none was taken (RuntimeError: boom)"]


def test_a_repository_runs_no_program_of_its_own(repository: Path) -> None:
    script = repository / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {repository}/ran\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "diff.external", "core.pager"):
        _git(repository, "config", key, str(script))
    (repository / "model.py").write_text("x = 3\n")
    take_snapshot(repository)
    assert not (repository / "ran").exists()
    assert not os.path.exists(repository / ".git" / "index.lock")
