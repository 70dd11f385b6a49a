"""What git says of a folder: asked briefly, without locks, prompts, or programs that a repository's config names."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class State:
    """Commit, branch (None when detached), and whether tracked files differ from the commit."""

    commit: str | None
    branch: str | None
    dirty: bool


def state(folder: Path, timeout: float) -> State | None:
    """The state of the work tree that `folder` is in; None without git or outside a work tree."""
    text = _git(folder, timeout, "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules")
    if text is None:
        return None
    commit, branch, dirty = None, None, False
    for line in text.decode("utf-8", errors="replace").splitlines():
        if line.startswith("# branch.oid "):
            commit = None if line.endswith("(initial)") else line.split()[-1]
        elif line.startswith("# branch.head "):
            branch = None if line.endswith("(detached)") else line.split(maxsplit=2)[-1]
        elif not line.startswith("#"):
            dirty = True
    return State(commit, branch, dirty)


def files(folder: Path, timeout: float) -> list[str] | None:
    """Tracked files below `folder`, and untracked ones that are not ignored; None where git can't tell in time."""
    text = _git(folder, timeout, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if text is None:
        return None
    names = {name.decode("utf-8", errors="surrogateescape") for name in text.split(b"\0") if name}
    return sorted(name for name in names if os.path.lexists(folder / name))


def diff(folder: Path, timeout: float) -> bytes:
    """What was changed since the commit, in the whole work tree, as a patch; empty where git can't tell in time."""
    return (
        _git(folder, timeout, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules")
        or b""
    )


def _git(folder: Path, timeout: float, *words: str) -> bytes | None:
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *words]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout, check=True, env=environment, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
