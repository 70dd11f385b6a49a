"""The frame of a TFRecord: length, its checksum, data, its checksum.

Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/lib/hash/crc32c.h (the mask).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_BYTES, FOOTER_BYTES = 12, 4
_MASK_DELTA = 0xA282EAD8


class LostRecordsError(ValueError):
    """A file whose records can't all be read.

    Args:
        message: what is wrong.
        offset: the byte at which the first bad record begins.
        records: whole records before it.
    """

    def __init__(self, message: str, offset: int, records: int) -> None:
        super().__init__(message)
        self.offset, self.records = offset, records


def import_checksum() -> Callable[[bytes], int]:
    """Return the function that computes a CRC-32C.

    Raises:
        MLScaleError: the extra is not installed.
    """
    try:
        from google_crc32c import value
    except ImportError as error:
        raise MLScaleError(
            "the package google-crc32c is not installed",
            where="data=tfrecord",
            why="each record of a TFRecord file has a CRC-32C, which is compared",
            fix="pip install 'mlscale[tfrecord]'",
            exit=Exit.ENVIRONMENT,
        ) from error
    compute: Callable[[bytes], int] = value
    return compute


def compute_masked_checksum(content: bytes) -> int:
    """Return the masked CRC-32C, uint32, as TFRecord files have it."""
    checksum = import_checksum()(content)
    # A checksum of data that holds checksums is weak, hence the mask.
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF


def list_records(handle: int, length: int) -> list[tuple[int, int]]:
    """Return offset and size of the data of every record of an open file of `length` bytes.

    Lengths are compared with their checksums; data is not read.

    Raises:
        LostRecordsError: it is not a TFRecord file, is cut off, or a length is corrupt.
    """
    records: list[tuple[int, int]] = []
    at = 0
    while at < length:
        # Only headers are read; what lies between them may be terabytes.
        header = os.pread(handle, HEADER_BYTES, at)
        if len(header) < HEADER_BYTES:
            raise LostRecordsError(f"it ends within the length of a record, at byte {length:,}", at, len(records))
        size, checksum = struct.unpack("<QI", header)
        # Before it is used: a corrupt length would skip records without a word.
        if checksum != compute_masked_checksum(header[:8]):
            raise LostRecordsError(
                f"the checksum of the length at byte {at:,} is {checksum:08x}, "
                f"and {compute_masked_checksum(header[:8]):08x} fits these bytes",
                at,
                len(records),
            )
        if at + HEADER_BYTES + size + FOOTER_BYTES > length:
            raise LostRecordsError(f"it ends within the record that begins at byte {at:,}", at, len(records))
        records.append((at + HEADER_BYTES, size))
        at += HEADER_BYTES + size + FOOTER_BYTES
    return records


def frame_record(content: bytes) -> bytes:
    """Return a record as a TFRecord file has it."""
    header = struct.pack("<Q", len(content))
    checksums = (struct.pack("<I", compute_masked_checksum(part)) for part in (header, content))
    return header + next(checksums) + content + next(checksums)


def has_right_checksum(framed: bytes) -> bool:
    """Return True if the checksum behind a record's data fits it.

    Args:
        framed: the data, and the four bytes of its checksum.
    """
    content, checksum = framed[:-FOOTER_BYTES], framed[-FOOTER_BYTES:]
    return struct.pack("<I", compute_masked_checksum(content)) == checksum
