"""Paths on a node of a platform, where a volume or a bucket is mounted. Nothing here exists on this machine."""

from __future__ import annotations

from pathlib import PurePosixPath


def resolve_runs_dir(runs_dir: str, volume_path: str) -> str:
    """Return the folder of the runs on a node: a relative one is on the volume."""
    return str(PurePosixPath(volume_path) / runs_dir)  # an absolute one stays


def is_below(path: str, folder: str) -> bool:
    """Return True if `path` is the folder or in it, by its text: `..` is resolved, links are not followed."""
    parts, outer = _normalise_path(path), _normalise_path(folder)
    return parts[: len(outer)] == outer


def _normalise_path(path: str) -> list[str]:
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        # The parent of the root is the root (path_resolution(7)).
        if part == "..":
            parts = parts[:1] if len(parts) <= 1 else parts[:-1]
        else:
            parts.append(part)
    return parts
