"""The members of a tar, read from its headers alone, and proof that they are all of them.

Reads ustar, pax, GNU (long names, sizes above 8 GiB), v7 and star headers. A tar ends in two blocks of zeros: one that
lacks them was cut off, and data behind them is either a further archive (`cat a.tar b.tar`), which is read too, or the
rest of a tar of which a part was overwritten with zeros. tarfile takes each of these for the end of the archive.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

# Headers take one block, and contents are filled up to whole blocks (POSIX, ustar).
BLOCK = 512
END = 2 * BLOCK
"""Bytes of zeros that end an archive."""

FILE, HARD_LINK, SYMBOLIC_LINK, SPECIAL = "file", "hard link", "symbolic link", "special"

_ZEROS = bytes(BLOCK)
# "\0" is a file in tars before POSIX, "7" a contiguous one.
_FILES = (b"0", b"\0", b"7")
_NO_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Kinds whose size field does not count: links, devices, folders, pipes."""
_SKIPPED_CONTENT = (b"V", b"D", b"A", b"I")
"""A label, GNU's folder lists, access rights and inodes: about the archive, and not of it."""
_RELEVANT_RECORDS = (b" path=", b" linkpath=", b" size=", b" GNU.sparse.", b" hdrcharset=")
"""Records of an extended header that change where a member is, what it is called, or what it holds."""
# Names and a few records take kilobytes: more is corruption, and is not read into memory.
_MAX_EXTENDED_BYTES = 1 << 20
_CHUNK = 1 << 20
_RECORD = 20 * BLOCK
"""Writers pad an archive to a multiple of this by default, or not at all."""


class CorruptTarError(tarfile.ReadError):
    """A tar of which a part is missing or overwritten.

    Attributes:
        offset: the byte from which on nothing can be relied on.
        is_cut: the file ends too early; what is before `offset` is whole.
    """

    def __init__(self, why: str, offset: int, *, is_cut: bool = False) -> None:
        super().__init__(why)
        self.offset, self.is_cut = offset, is_cut


class TarMember(NamedTuple):
    """A member that is not a folder.

    Attributes:
        name: as it is stored.
        kind: FILE, HARD_LINK, SYMBOLIC_LINK or SPECIAL.
        start: first byte of its content.
        size: bytes of its content.
        target: what a link points to.
    """

    name: str
    kind: str
    start: int
    size: int
    target: str = ""


class TarReader:
    """Iterates over the members of a tar, once.

    Args:
        handle: the open file.
        length: its bytes.

    Attributes:
        joins: the bytes at which further archives begin.
        surplus: zeros after the end, in bytes, where writers put fewer or more; else 0.
    """

    def __init__(self, handle: int, length: int) -> None:
        self._handle, self._length = handle, length
        self._begin = 0
        self._last_content = 0
        """The end of the last content, for `_is_hole`."""
        self._globals: dict[str, bytes] = {}
        self.joins: list[int] = []
        self.surplus = 0

    def __iter__(self) -> Iterator[TarMember]:
        """Yield the members in order.

        Raises:
            CorruptTarError: a part of the tar is missing or overwritten, or a member is sparse.
        """
        offset, extended = 0, self._globals
        while (header := self._read_header(offset)) is not None:
            if header == _ZEROS:
                if extended is not self._globals:
                    raise CorruptTarError(f"the extended header before byte {offset:,} belongs to no member", offset)
                if (further := self._find_next_archive(offset)) is None:
                    return
                offset = further
                continue
            size = _read_size(header, offset)
            # The type flag; the content follows the header.
            kind, start = header[156:157], offset + BLOCK
            if kind in _NO_CONTENT:
                size = self._measure_link(header, start, size) if kind == b"1" else 0
            if extended:
                size = _read_extended_size(extended, size, offset, kind)
            if start + size > self._length:
                raise CorruptTarError(
                    f"the member whose header is at byte {offset} has {size:,} bytes, and the file ends "
                    f"{start + size - self._length:,} bytes too early",
                    offset,
                    is_cut=True,
                )
            following = start + -(-size // BLOCK) * BLOCK
            if kind in (b"x", b"X", b"g", b"L", b"K"):
                extended = self._extend_records(kind, start, size, offset, extended)
            elif kind not in _SKIPPED_CONTENT:
                if (member := _parse_member(header, kind, start, size, extended, offset)) is not None:
                    yield member
                if size:
                    self._last_content = start + size
                # Records of `x`, `L` and `K` are about one member, those of `g` about all that follow.
                extended = self._globals
            offset = following

    def _read_header(self, offset: int) -> bytes | None:
        header = os.pread(self._handle, BLOCK, offset)
        if len(header) == BLOCK:
            return header
        raise CorruptTarError(
            f"the file ends at byte {self._length:,} without the two blocks of zeros that end a tar",
            offset,
            is_cut=True,
        )

    def _measure_link(self, header: bytes, start: int, size: int) -> int:
        """Return the size of a hard link's own content. Writers state the size of the file that it links to, and only
        some of them repeat the content: then no header follows."""
        # In tars before POSIX a hard link has no content of its own.
        if size == 0 or header[257:262] != b"ustar":
            return 0
        after = os.pread(self._handle, BLOCK, start)
        return 0 if after == _ZEROS or is_header(after) else size

    def _extend_records(
        self, kind: bytes, start: int, size: int, offset: int, extended: dict[str, bytes]
    ) -> dict[str, bytes]:
        """Return the records of an extended header, added to those of the headers before it."""
        if size > _MAX_EXTENDED_BYTES:
            raise CorruptTarError(f"the extended header at byte {offset} has {size:,} bytes", offset)
        content = os.pread(self._handle, size, start)
        # GNU's long names: the content is the name itself, and no list of records.
        if kind in (b"L", b"K"):
            return {**extended, "path" if kind == b"L" else "linkpath": content.partition(b"\0")[0]}
        if not any(word in content for word in _RELEVANT_RECORDS):
            return extended
        records = _parse_records(content, offset)
        if kind == b"g":
            self._globals = {**self._globals, **records}
        return {**extended, **records}

    def _find_next_archive(self, end: int) -> int | None:
        """Return the byte at which a further archive begins, given a first block of zeros; None at the end of the file.

        Raises:
            CorruptTarError: the zeros are not the end of an archive.
        """
        following = self._find_next_data(end)
        if following is None:
            if self._length - end > END and not _is_padding(self._begin, end, self._length):
                self.surplus = self._length - end - END
                if self._is_hole():
                    raise CorruptTarError(
                        f"the file holds zeros alone from within a member before byte {end:,} to its end", end
                    )
            return None
        if (
            _is_padding(self._begin, end, following)
            and is_header(os.pread(self._handle, BLOCK, following))
            and not self._is_hole()
        ):
            self.joins.append(following)
            # Global records end with their archive.
            self._begin, self._globals = following, {}
            return following
        raise CorruptTarError(
            f"there are {following - end:,} bytes of zeros at byte {end:,}, where a header should be, "
            f"and other data from byte {following:,} on",
            end,
        )

    def _find_next_data(self, offset: int) -> int | None:
        """Return the offset of the first block from `offset` on that is not all zeros; None if there is none."""
        while chunk := os.pread(self._handle, _CHUNK, offset):
            if zeros := len(chunk) - len(chunk.lstrip(b"\0")):
                if zeros < len(chunk):
                    return offset + zeros // BLOCK * BLOCK
            else:
                return offset
            offset += len(chunk)
        return None

    def _is_hole(self) -> bool:
        """Return True if the end of the last content is zeros too, as where a file system lost the last writes."""
        start = max(0, self._last_content - BLOCK)
        return not os.pread(self._handle, self._last_content - start, start).strip(b"\0")


def _parse_member(
    header: bytes, kind: bytes, start: int, size: int, extended: dict[str, bytes], offset: int
) -> TarMember | None:
    """Return the member of a header; None for a folder."""
    if kind == b"S" or (extended and any(key.startswith("GNU.sparse.") for key in extended)):
        raise CorruptTarError(f"the member whose header is at byte {offset} is sparse: its zeros are left out", offset)
    if kind == b"M":
        raise CorruptTarError(f"the member whose header is at byte {offset} begins in another volume", offset)
    raw = extended["path"] if extended and "path" in extended else _read_stored_name(header)
    if kind == b"5" or (kind in _FILES and raw.endswith(b"/")):  # how the oldest tars wrote folders
        return None
    name = raw.decode("utf-8", "surrogateescape")
    if kind in _FILES:
        return TarMember(name, FILE, start, size)
    if kind not in (b"1", b"2"):
        return TarMember(name, SPECIAL, start, size)
    stated = extended.get("linkpath") if extended else None
    target = (header[157:257].partition(b"\0")[0] if stated is None else stated).decode("utf-8", "surrogateescape")
    if kind == b"2":
        return TarMember(name, SYMBOLIC_LINK, start, 0, target)
    return TarMember(name, FILE if size else HARD_LINK, start, size, target)


def _read_stored_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] != b"ustar\0":  # GNU's own kind keeps other things where the prefix is
        return name
    # star's kinds keep times in the last bytes of the prefix.
    prefix = header[345 : 476 if header[508:512] == b"tar\0" else 500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _read_size(header: bytes, offset: int) -> int:
    """Return the size that a header states."""
    if not is_header(header):
        raise CorruptTarError(f"what is at byte {offset:,} is not a header: its checksum is wrong", offset)
    field = header[124:136]
    try:
        if field[0] in (0x80, 0xFF):  # more than 8 GiB, in base 256
            # The flag 0x80 is the sign bit of 12 bytes, worth -2^95, and not a part of the number; 0xFF begins a
            # negative one.
            size = int.from_bytes(field, "big", signed=True) + (1 << 95 if field[0] == 0x80 else 0)
        else:
            size = int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        size = -1
    if size < 0:
        raise CorruptTarError(f"the header at byte {offset:,} states the size {field!r}", offset)
    return size


def is_header(header: bytes) -> bool:
    """Return True if the checksum is the sum of all bytes, its own eight as spaces; of signed bytes in old tars."""
    if len(header) < BLOCK:
        return False
    try:
        stated = int(header[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    # 32 is a space.
    total = sum(header) - sum(header[148:156]) + 8 * 32
    if stated == total:
        return True
    # As a signed byte each value above 127 counts 256 less.
    own = sum(byte > 127 for byte in header[148:156])
    return stated == total - 256 * (sum(byte > 127 for byte in header) - own)


def _parse_records(content: bytes, offset: int) -> dict[str, bytes]:
    """Return the records of an extended header, each 'length key=value\\n'."""
    records: dict[str, bytes] = {}
    at = 0
    # Some writers fill the block up with zeros, which end the records.
    while at < len(content) and content[at]:
        digits = content[at : at + 20].partition(b" ")[0]
        # The length counts itself, the space after it and the line end.
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = content[at + len(digits) + 1 : at + length - 1].partition(b"=")
        is_name = key in (b"path", b"linkpath")
        if not equals or content[at + length - 1 : at + length] != b"\n" or (is_name and b"\0" in value):
            raise CorruptTarError(f"the extended header at byte {offset:,} is malformed", offset)
        records[key.decode("utf-8", "surrogateescape")] = value
        at += length
    return records


def _read_extended_size(extended: dict[str, bytes], size: int, offset: int, kind: bytes) -> int:
    """Return the size that an extended header states, for kinds that have content."""
    stated = extended.get("size")
    if stated is None or kind in (*_NO_CONTENT, b"x", b"X", b"g", b"L", b"K"):
        return size
    if not stated.isdigit():
        raise CorruptTarError(f"the extended header before byte {offset:,} states the size {stated!r}", offset)
    return int(stated)


def _is_padding(begin: int, end: int, following: int) -> bool:
    """Return True if the zeros from `end` to `following` are the padding of the archive that begins at `begin`."""
    zeros = following - end
    return zeros == END or (END < zeros < END + _RECORD and (following - begin) % _RECORD == 0)
