"""Resolution of a user's spec (path, list, brace pattern, glob, folder, address) to a list of shards."""

from __future__ import annotations

import difflib
import glob
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from mlscale.data.shards.system_files import drop_system_files, match_paths
from mlscale.errors import MLScaleError, Problems, raise_all

ReadSpan = Callable[[int, int], bytes]
"""Returns bytes of a shard, given their number and their offset; fewer at its end."""
Spec = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# Magic numbers of gzip, bzip2, xz and Zstandard.
_COMPRESSED = {b"\x1f\x8b": "gunzip -k", b"BZh": "bunzip2 -k", b"\xfd7zXZ": "unxz -k", b"\x28\xb5\x2f\xfd": "unzstd"}


@dataclass(frozen=True)
class ShardFiles:
    """The names of files that are shards of one format, and how their ends are written in a message."""

    names: re.Pattern[str]
    endings: str


TAR_FILES = ShardFiles(re.compile(r"\.tar$"), ".tar")


@dataclass(frozen=True)
class Shard:
    """A file of samples: the name that its samples' keys begin with, and its path."""

    name: str
    path: str

    is_remote: ClassVar[bool] = False

    @contextmanager
    def open_copy(self) -> Iterator[str]:
        """Yield the path of its bytes on this machine."""
        yield self.path

    @contextmanager
    def open_reader(self, *, whole: bool = False) -> Iterator[ReadSpan]:
        """Yield a function that reads its bytes; `whole` where most of them will be read."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            # pread has no file position, so threads may share a handle.
            yield partial(os.pread, handle)
        finally:
            os.close(handle)


FindRemote = Callable[[str, str, re.Pattern[str]], Sequence[Shard]]
"""Returns the shards of an address, given the key path of the spec and the names of shards."""


def find_shards(
    spec: Spec,
    *,
    where: str,
    files: ShardFiles = TAR_FILES,
    find_remote: FindRemote | None = None,
) -> list[Shard]:
    """Return the shards that a spec names, in its order; those of a folder or a glob are sorted.

    A path that exists is used unchanged, whatever braces, spaces, `?`, `&` or `#` are in it; only otherwise is it
    read as a pattern.

    Args:
        spec: a path, a pattern, a folder, an address of a remote one, or a list of them.
        where: the key path of the spec, for errors.
        files: which files of a folder are shards.
        find_remote: finds the shards of an address; None where addresses are not read.

    Raises:
        MLScaleError: nothing is there, or what is there cannot be indexed. All problems of the spec at once.
    """
    entries = [spec] if isinstance(spec, str | os.PathLike) else list(spec)
    shards: list[Shard] = []
    problems: list[MLScaleError] = []
    if not entries or "" in entries:
        problems.append(MLScaleError("no shards are named", where=where, fix=f"{where}=<path, pattern or folder>"))
        entries = [entry for entry in entries if entry != ""]
    for entry in entries:
        try:
            shards += _expand_entry(os.fspath(entry), where, files, find_remote)
        except Problems as several:
            problems += several.problems
        except MLScaleError as problem:
            problems.append(problem)
    for shard in shards:
        try:
            # A remote one is looked at once its bytes are here.
            if files is TAR_FILES and not shard.is_remote:
                _check_kind(shard.path, where)
        except MLScaleError as problem:
            problems.append(problem)
    raise_all(problems)
    # Until here each has its whole path, or address, as its name.
    names = _derive_shard_names([shard.name for shard in shards])
    return [replace(shard, name=name) for shard, name in zip(shards, names, strict=True)]


def _expand_entry(entry: str, where: str, files: ShardFiles, find_remote: FindRemote | None) -> list[Shard]:
    if _SCHEME.match(entry) and not entry.startswith("file://"):
        if find_remote is None:
            raise MLScaleError(
                "addresses are not read here",
                where=where,
                why="data.train, data.val and data.test take addresses, of data=webdataset and data=tfrecord",
                fix=f"{where}=<a folder of this machine>, to which you copy the shards",
            )
        return list(find_remote(entry, where, files.names))
    if entry.startswith("pipe:"):
        command = entry.removeprefix("pipe:").strip()
        raise MLScaleError(
            f"the command {command!r} is not run",
            where=where,
            why="pipe: runs a shell, and configurations may come from elsewhere; s3://, gs:// and az:// need none",
            fix=f"{command} > shard.tar; then {where}=shard.tar",
        )
    return [Shard(path, path) for path in _expand_path(entry.removeprefix("file://"), where, files)]


def _expand_path(entry: str, where: str, files: ShardFiles) -> list[str]:
    path = os.path.expanduser(entry)
    if os.path.isdir(path):
        return _list_folder(path, where, files)
    if os.path.exists(path):
        return [path]
    return _expand_pattern(path, where)


def _list_folder(path: str, where: str, files: ShardFiles) -> list[str]:
    names = drop_system_files([name for name in sorted(os.listdir(path)) if files.names.search(name)], where=where)
    if names:
        return [os.path.join(path, name) for name in names]
    # A folder of compressed shards gets the message about compression.
    packed = sorted(name for name in os.listdir(path) if re.search(r"\.(tgz|tar\.\w+)$", name))
    if packed:
        _check_kind(os.path.join(path, packed[0]), where)
    raise MLScaleError(
        f"the folder {path!r} holds no shard",
        where=where,
        why=f"it has no file whose name ends in {files.endings} (files and folders in it: {len(os.listdir(path))})",
        fix=f"{where}=<a folder of {files.endings.partition(' ')[0]} files>, "
        "or data=imagefolder data.root=<a folder of images by class>",
    )


def _expand_braces(path: str) -> list[str]:
    # Imported on use: folders and globs need nothing of it.
    import braceexpand

    # Unbalanced braces are part of a name.
    try:
        return list(braceexpand.braceexpand(path))
    except ValueError:
        return [path]


def _expand_pattern(path: str, where: str) -> list[str]:
    parts = _expand_braces(path) if re.search(r"[{\\]", path) else [path]
    matches: list[str] = []
    missing: list[str] = []
    for part in parts:
        matched = [part] if os.path.exists(part) else match_paths(part) if glob.has_magic(part) else []
        matches += matched
        if not matched:
            missing.append(part)
    if not missing:
        return matches
    if len(parts) == 1 and not glob.has_magic(path):
        raise _build_missing_path_error(path, where)
    raise MLScaleError(
        f"missing: {len(missing)} of the {len(parts)} shards of {path!r}"
        if len(parts) > 1
        else f"no shard matches {path!r}",
        where=where,
        why=f"not there: {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''} "
        f"(looked in {_find_existing_parent(path)})",
        fix=_suggest_nearest(missing[0], where),
    )


def _build_missing_path_error(path: str, where: str) -> MLScaleError:
    return MLScaleError(
        f"the path {path!r} does not exist",
        where=where,
        why=f"{_find_existing_parent(path)} is the last folder on the way that does",
        fix=_suggest_nearest(path, where),
    )


def _find_existing_parent(path: str) -> Path:
    """Return the deepest folder on the way to `path` that exists."""
    return next(folder for folder in Path(path).absolute().parents if folder.is_dir())


def _suggest_nearest(path: str, where: str) -> str:
    parent = _find_existing_parent(path)
    sought = Path(path).absolute().relative_to(parent).parts[0]
    near = difflib.get_close_matches(sought, os.listdir(parent), n=1)
    return f"{where}={shlex.quote(str(parent / near[0]))}" if near else f"{where}=<path, pattern or folder>"


def _check_kind(path: str, where: str) -> None:
    """Refuse a compressed file by its first bytes. A tar that is not whole is noticed when it is indexed."""
    with open(path, "rb") as stream:
        # As long as the longest magic number, that of xz.
        head = stream.read(6)
    for magic, unpack in _COMPRESSED.items():
        if head.startswith(magic):
            raise MLScaleError(
                f"the shard {path!r} is compressed",
                where=where,
                why="samples are read at their offsets, which a compressed tar does not have",
                fix=f"{unpack} {shlex.quote(path)}",
            )


def _derive_shard_names(paths: Sequence[str]) -> list[str]:
    """Return file names if they are unique, else paths from the folder that all shards share."""
    names = [os.path.basename(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    # Names are part of the data version, so they do not depend on where the shards are. An address counts as a path:
    # that of its server and folders.
    full = [os.path.abspath(_SCHEME.sub("/", path)) for path in paths]
    top = os.path.commonpath([os.path.dirname(path) for path in full])
    return [Path(path).relative_to(top).as_posix() for path in full]
