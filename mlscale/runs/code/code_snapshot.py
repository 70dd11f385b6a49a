"""Snapshot of the code that ran: files that git does not ignore, capped, secrets masked. It never fails a run.

The files of a folder that are code: neither installed nor built, nor written by mlscale itself.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from mlscale.contracts import get_format_tag
from mlscale.secrets.secret_patterns import find_secret_spans, mask_spans, split_words

TOTAL_BYTES = 10 << 20
FILE_BYTES = 1 << 20
FILES = 5000
# Only for a disk or a git that hangs: what is left out by time differs from start to start, and code that has another
# digest is not found by `resume=auto`. Files, bytes and entries are the limits that always leave out the same.
SECONDS = 30.0
DIFF = "uncommitted.diff"
# Never read, even if git tracks them: their only purpose is to hold secrets.
PRIVATE = split_words(
    ".env .env.* *.pem *.key *.p12 *.pfx *.jks *.keystore *.kdbx id_rsa* id_ed25519* id_ecdsa* id_dsa* .netrc _netrc "
    ".pypirc .pgpass .htpasswd .git-credentials .npmrc .dockercfg credentials credentials.json credentials.yaml "
    "credentials.yml credentials.toml credentials.ini secrets.json secrets.yaml secrets.yml secrets.toml secrets.env "
    "secrets.ini service-account*.json *.tfstate *.tfvars"
)
# In these files an unquoted value after `=` is an expression; only quoted texts are searched for secrets.
_QUOTED_ONLY = (
    ".py",
    ".pyi",
    ".ipynb",
    ".js",
    ".ts",
    ".c",
    ".cc",
    ".cpp",
    ".cu",
    ".h",
    ".rs",
    ".go",
    ".java",
    ".md",
    ".toml",
    ".diff",
)


@dataclass(frozen=True)
class CodeSnapshot:
    """A snapshot in memory, at most 10 MiB; `RunFolder.create` writes it.

    Attributes:
        root: the folder it was taken of.
        digest: SHA-256 over the paths and contents kept: the same code has the same digest, committed or not.
        archive: a gzipped tar.
        files: the paths in it.
        skipped: path to the reason why it is not in it.
        masked: path to the number of texts that looked like a secret, and were replaced by ***.
        commit, branch, dirty: the state of the git work tree; None and False without git.
        complete: False where the folder was too large to scan.
    """

    root: str
    digest: str
    archive: bytes
    files: tuple[str, ...]
    skipped: dict[str, str]
    masked: dict[str, int]
    commit: str | None = None
    branch: str | None = None
    dirty: bool = False
    complete: bool = True

    def build_run_summary(self) -> dict[str, Any]:
        """Return the summary that run.json holds."""
        return {
            "digest": self.digest,
            "commit": self.commit,
            "dirty": self.dirty,
            "files": len(self.files),
            "skipped": len(self.skipped),
        }

    def build_code_document(self) -> dict[str, Any]:
        """Return the content of code.json."""
        return {
            "format": get_format_tag("code"),
            "digest": self.digest,
            "root": self.root,
            "commit": self.commit,
            "branch": self.branch,
            "dirty": self.dirty,
            "files": list(self.files),
            "skipped": self.skipped,
            "masked": self.masked,
            "complete": self.complete,
        }

    def format_warnings(self) -> list[str]:
        """Return warnings for the user, one line each; secrets in code first."""
        lines = []
        # Tests hold made-up secrets: masked all the same, but nothing to move.
        masked_files = [name for name in self.masked if "tests" not in PurePath(name).parts]
        if masked_files:
            names = ", ".join(masked_files[:3]) + (", …" if len(masked_files) > 3 else "")
            lines.append(
                f"code snapshot: what looks like a secret in {names} was replaced by ***; move it to the environment"
            )
        if "." in self.skipped:
            lines.append(f"code snapshot: none was taken ({self.skipped['.']})")
        elif not self.complete:
            lines.append(
                f"code snapshot: {self.root} is too large to look through; kept the first {len(self.files)} files"
            )
        return lines


def take_snapshot(root: str | Path = ".") -> CodeSnapshot:
    """Take a snapshot of the code in `root`; on failure return an empty one with the reason, so that the run continues.

    Args:
        root: the working directory of the user. In a git work tree: tracked files, and untracked ones that git does
            not ignore, as they are now, and the uncommitted diff. Elsewhere: Python and YAML files. Never what mlscale
            has written: runs, versions, servables and their targets.
    """
    try:
        return _collect_code(Path(root).resolve())
    except Exception as error:
        reason = {".": f"{type(error).__name__}: {error}"}
        return CodeSnapshot(str(root), _compute_code_digest({}), _pack_archive({}), (), reason, {}, complete=False)


def _collect_code(root: Path) -> CodeSnapshot:
    deadline = time.monotonic() + SECONDS
    state = read_git_state(root, timeout=SECONDS)
    listed = list_git_files(root, timeout=SECONDS) if state else None
    contents: dict[str, bytes] = {}
    skipped: dict[str, str] = {}
    mask_counts: dict[str, int] = {}
    total, complete = 0, True
    for count, name in enumerate(
        exclude_generated_files(root, listed) if listed is not None else find_code_files(root, deadline)
    ):
        if count >= FILES or name == TOO_LARGE or time.monotonic() > deadline:
            complete = False
            break
        content = _read_code_file(root / name, TOTAL_BYTES - total)
        if isinstance(content, str):
            skipped[name] = content
            continue
        contents[name], mask_count = _mask_secrets(name, content)
        total += len(contents[name])
        mask_counts.update({name: mask_count} if mask_count else {})
    # Before the diff is added: the same code has the same digest, committed or not.
    digest = _compute_code_digest(contents)
    diff = diff_uncommitted(root, timeout=SECONDS) if state and state.dirty else b""
    if len(diff) > FILE_BYTES:
        skipped[DIFF] = "larger than 1 MiB"
    elif diff:
        contents[DIFF], mask_count = _mask_secrets(DIFF, diff)
        mask_counts.update({DIFF: mask_count} if mask_count else {})
    commit, branch, dirty = (state.commit, state.branch, state.dirty) if state else (None, None, False)
    return CodeSnapshot(
        str(root),
        digest,
        _pack_archive(contents),
        tuple(contents),
        skipped,
        mask_counts,
        commit,
        branch,
        dirty,
        complete,
    )


def _read_code_file(path: Path, remaining_bytes: int) -> bytes | str:
    """Return the content of a file, or the reason to leave it out."""
    if any(fnmatch.fnmatch(path.name.lower(), pattern) for pattern in PRIVATE):
        return "made to hold secrets"
    if path.is_symlink() or not path.is_file():
        return "not a regular file"
    try:
        size = path.stat().st_size
        if size > FILE_BYTES:
            return "larger than 1 MiB"
        if size > remaining_bytes:
            return "the snapshot is full (10 MiB)"
        content = path.read_bytes()
    except OSError as error:
        return error.strerror or "unreadable"
    # The same test as git's: a NUL byte near the beginning.
    return "binary" if b"\0" in content[:8192] else content


def _mask_secrets(name: str, content: bytes) -> tuple[bytes, int]:
    """Return a file's content with likely secrets replaced, and their number."""
    # Bytes that are not UTF-8 survive decoding and encoding unchanged.
    text = content.decode("utf-8", errors="surrogateescape")
    matches = find_secret_spans(text, bare=not name.endswith(_QUOTED_ONLY))
    return (mask_spans(text, matches).encode("utf-8", errors="surrogateescape") if matches else content), len(matches)


def _compute_code_digest(contents: dict[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name in sorted(contents):
        whole.update(
            f"{name}\0{hashlib.sha256(contents[name]).hexdigest()}\n".encode("utf-8", errors="surrogateescape")
        )
    return whole.hexdigest()


def _pack_archive(contents: dict[str, bytes]) -> bytes:
    """Return a gzipped tar without times and owners, so that the same code gives the same bytes."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True)
class GitState:
    """The commit, the branch (None when detached), and `dirty`: True if tracked files differ from the commit."""

    commit: str | None
    branch: str | None
    dirty: bool


def read_git_state(folder: Path, timeout: float) -> GitState | None:
    """Return the state of the work tree that `folder` is in; None without git or outside a work tree."""
    text = _run_git(
        folder, timeout, "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules"
    )
    if text is None:
        return None
    commit, branch, dirty = None, None, False
    # git-status(1), 'Porcelain Format Version 2': headers begin with '#', every other line is a changed file.
    for line in text.decode("utf-8", errors="replace").splitlines():
        if line.startswith("# branch.oid "):
            commit = None if line.endswith("(initial)") else line.split()[-1]
        elif line.startswith("# branch.head "):
            branch = None if line.endswith("(detached)") else line.split(maxsplit=2)[-1]
        elif not line.startswith("#"):
            dirty = True
    return GitState(commit, branch, dirty)


def list_git_files(folder: Path, timeout: float) -> list[str] | None:
    """Return tracked files below `folder`, and untracked ones that are not ignored; None where git fails or is late."""
    text = _run_git(folder, timeout, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if text is None:
        return None
    names = {name.decode("utf-8", errors="surrogateescape") for name in text.split(b"\0") if name}
    # git also lists tracked files that are deleted in the work tree; links to nothing exist, too.
    return sorted(name for name in names if os.path.lexists(folder / name))


def diff_uncommitted(folder: Path, timeout: float) -> bytes:
    """Return the changes since the commit, in the entire work tree, as a patch; empty where git fails or is late."""
    return (
        _run_git(folder, timeout, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules")
        or b""
    )


def _run_git(folder: Path, timeout: float, *words: str) -> bytes | None:
    # A repository's config may name programs for these two, which would run with the rights of whoever starts a run.
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *words]
    # Without optional locks: `git status` would lock the index, and a command of the user at that moment would fail.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        completed = subprocess.run(
            command, capture_output=True, timeout=timeout, check=True, env=environment, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout


ENTRIES = 20_000  # limit for scanning a folder without git: a user may start in a home directory
TOO_LARGE = ""  # not the path of any file
TRITON_CONFIG = "config.pbtxt"
TRITON_MARK = "# Written by mlscale export."
"""The first line of the configuration of a model for Triton, whose folder holds code that runs in a server. Users copy
such folders to where they serve from, and write models of their own next to them."""
_NO_CODE = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
_CODE = (".py", ".yaml", ".yml")
_VERSION = "versions/*/v*/version.json"  # in a registry of models
_SERVABLE = "servable.yaml"  # in what an export made


def exclude_generated_files(root: Path, names: list[str]) -> list[str]:
    """Drop files of run folders, registries, servables and their targets that git does not ignore: with them, the same
    code would get a new digest after every run or export.

    Args:
        root: the folder that the names are relative to.
        names: of files.
    """
    known, paths = set(names), [PurePath(name) for name in names]
    runs = {path.parent for path in paths if path.name == "run.json" and str(path.with_name("derived.yaml")) in known}
    servables = {path.parent for path in paths if path.name == _SERVABLE}
    # Four levels above `versions/<model>/v<number>/version.json` is the registry's folder.
    registries = {path.parents[3] for path in paths if path.match(_VERSION)}
    models = {path.parent for path in paths if path.name == TRITON_CONFIG and _has_triton_mark(root / path)}
    # Not ".": where the work tree itself is a run folder or a registry, all of its files would be dropped.
    generated = (runs | servables | registries | models) - {PurePath(".")}
    return [name for name, path in zip(names, paths, strict=True) if not generated.intersection(path.parents)]


def find_code_files(root: Path, deadline: float) -> Iterator[str]:
    """Yield Python and YAML files below `root`, except hidden, installed or built ones, and what mlscale has written.

    The last one is `TOO_LARGE` where the folder has more than `ENTRIES`, or the time is over.
    """
    entries = 0
    for parent, folders, names in os.walk(root):
        entries += len(folders) + len(names)
        if entries > ENTRIES or time.monotonic() > deadline:
            yield TOO_LARGE
            return
        here = Path(parent)
        version = "version.json" in names and (here / "version.json").match(_VERSION)
        is_made = "pyvenv.cfg" in names or _SERVABLE in names
        is_model = TRITON_CONFIG in names and _has_triton_mark(here / TRITON_CONFIG)
        if version or is_made or is_model or {"run.json", "derived.yaml"} <= set(names):
            folders.clear()
            continue
        # In place: os.walk enters only the folders that are left in its own list.
        folders[:] = sorted(folder for folder in folders if not folder.startswith(".") and folder not in _NO_CODE)
        yield from (str((here / name).relative_to(root)) for name in sorted(names) if name.endswith(_CODE))


def _has_triton_mark(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.readline(200).strip() == TRITON_MARK.encode()
    return False
