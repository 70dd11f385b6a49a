"""Query git about a folder: with a time limit, without locks, prompts, or programs from a repository's config."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


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
