"""The samples of a tar: which members belong together, and what was left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mlscale.data.shards.system_files import KIND, SkippedFiles, count_skipped, is_system_file
from mlscale.data.shards.tar_reader import FILE, HARD_LINK, SYMBOLIC_LINK, CorruptTarError, TarMember, TarReader

LINKS = "skipped symbolic links (tar -h stores what they point to)"
DEVICES = "skipped devices and pipes"
LOOSE = "skipped members without key and extension"
AGAIN = "keys that come again in their shard, read as samples of their own"
JOINED = "further archives that were joined by cat, and are read too"
SURPLUS = "shards with an unusual number of zeros at their end: samples may be missing there"

# As webdataset has it, which leaves out members of these names as metadata.
_META = re.compile(r"__[^/]*__($|/)")
# As webdataset parts names, at the first dot of the last one; it need not be installed to read shards.
_KEY_AND_EXTENSION = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")

MemberSpan = tuple[int, int]
"""Offset and size, in bytes."""


class TarSample(NamedTuple):
    """Members that share what is before the first dot of their names, by their extensions."""

    key: str
    members: dict[str, MemberSpan]


@dataclass(frozen=True)
class TarContents:
    """The contents of a tar.

    Args:
        samples: samples in the order of their first members.
        skipped: other contents of the tar, by kind.
    """

    samples: list[TarSample] = field(default_factory=list)
    skipped: dict[str, SkippedFiles] = field(default_factory=dict)


class LostSamplesError(CorruptTarError):
    """A tar whose samples can't all be read.

    Attributes:
        whole: samples before the place.
        is_duplicate: nothing is lost, but a sample has a member twice.
    """

    whole: int = 0
    is_duplicate: bool = False


class _DuplicateMemberError(CorruptTarError):
    """A member that the sample before it has already."""


def scan_tar(path: str, length: int) -> TarContents:
    """Return the samples of a tar of `length` bytes.

    Raises:
        LostSamplesError: it is not a tar, a part of it is missing or overwritten, or a sample has a member twice.
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        reader, scanned = TarReader(handle, length), TarContents()
        try:
            if length == 0:
                raise CorruptTarError("the file has no bytes", 0, is_cut=True)
            _group_members(_resolve_links(reader, scanned), scanned)
        except CorruptTarError as error:
            lost = LostSamplesError(str(error), error.offset, is_cut=error.is_cut)
            lost.whole, lost.is_duplicate = len(scanned.samples), isinstance(error, _DuplicateMemberError)
            raise lost from error
    finally:
        os.close(handle)
    for byte in reader.joins:
        count_skipped(scanned.skipped, JOINED, f"{os.path.basename(path)} from byte {byte:,} on")
    if reader.surplus:
        count_skipped(scanned.skipped, SURPLUS, f"{os.path.basename(path)}, {reader.surplus:,} bytes")
    return scanned


def _resolve_links(members: Iterable[TarMember], scanned: TarContents) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each file; a hard link has those of the file that it links to."""
    spans: dict[str, MemberSpan] = {}
    for name, kind, start, size, target in members:
        if kind == HARD_LINK:
            # A link may name its target with or without the './' of the member.
            span = spans.get(target) or spans.get(target.removeprefix("./"))
            if span is None:
                # The start of the content is known, and the header is the block before it.
                raise CorruptTarError(f"{name!r} is a hard link to {target!r}, which is not before it", start - 512)
            start, size = span
        elif kind != FILE:
            count_skipped(scanned.skipped, LINKS if kind == SYMBOLIC_LINK else DEVICES, name)
            continue
        spans[name.removeprefix("./")] = (start, size)
        yield name, start, size


def _group_members(files: Iterable[tuple[str, int, int]], scanned: TarContents) -> None:
    """Put members together to samples.

    Those of a sample need not be neighbours: `tar cf shard.tar .` writes files in whatever order the folder lists them.
    A key that comes again with what its sample has already is another sample, as in two shards that were joined, and is
    counted. Right behind its sample it is an error, as in webdataset: which members belong together can't be known.
    """
    samples = scanned.samples
    latest: dict[str, TarSample] = {}
    for name, offset, size in files:
        if is_system_file(name):
            count_skipped(scanned.skipped, KIND, name)
            continue
        if name.startswith("__") and _META.match(name):
            continue
        match = _KEY_AND_EXTENSION.match(name)
        # A name that begins with a dot webdataset joins to its folder.
        if match is None or match[1].endswith("/"):
            count_skipped(scanned.skipped, LOOSE, name)
            continue
        key, extension = match.groups()
        # Lower case, as webdataset groups members.
        sample, extension = latest.get(key), extension.lower()
        if sample is not None and extension in sample.members:
            if sample is samples[-1]:
                raise _DuplicateMemberError(f"member {name!r} is there twice", offset - 512)
            count_skipped(scanned.skipped, AGAIN, key)
            sample = None
        if sample is None:
            sample = latest[key] = TarSample(key, {})
            samples.append(sample)
        sample.members[extension] = (offset, size)
