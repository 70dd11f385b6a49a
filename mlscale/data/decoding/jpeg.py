"""JPEG, strictly: warnings of libjpeg-turbo are errors, but for a few deviations that intact files have, too.

A decoder that warns continues with whatever pixels it has, and names the first warning alone. So a file that it warns
of is rewritten in memory without the deviations that are known to be harmless, and decoded strictly again: another
warning, or one that has another cause, is an error still. The deviations, and whose files have them:

- zero bytes, or up to three others, between two segments of the header (cheap cameras);
- zero bytes between the data of a scan and the next marker (padding of cameras and webcams);
- scan parameters that a sequential JPEG does not use (Samsung's phones);
- a JFIF version that does not exist, an ICC profile that is incomplete or there twice: neither is read here;
- no end marker, where the only scan of a sequential JPEG is complete.

Decoders find only what a JPEG's structure shows: a flipped bit in the data of a scan often gives another valid image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

Decoded = TypeVar("Decoded")

START = b"\xff\xd8"
END = b"\xff\xd9"
_APP0, _APP1, _APP2 = 0xE0, 0xE1, 0xE2
_SCAN, _FINISH = 0xDA, 0xD9
_MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that have no length and no content."""
# Frames by marker: SOF0, SOF1 and SOF9 (arithmetic coding); SOF2 and SOF10; SOF3.
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_LOSSLESS = frozenset({0xC3})
_FRAMES = _SEQUENTIAL | _PROGRESSIVE | _LOSSLESS
_UNUSED_SCAN_PARAMETERS = b"\x00\x3f\x00"
"""The range and precision of a scan's coefficients in a sequential JPEG."""
_MAX_STRAY_BYTES = 3
"""Bytes between two segments that can't be a segment whose marker was lost."""
_MAX_SCANS = 100
# A zero after 0xFF is an escaped data byte, and not padding.
_ZEROS = re.compile(rb"(?<!\xff)\0+(?=\xff[\xd0-\xd9])")


Segment = tuple[int, int, int, int]
"""A segment of the header: its marker, and where it begins (0xFF), its content begins, and it ends."""


def iterate_segments(content: bytes) -> Iterator[Segment]:
    """Yield the header's segments, up to and with that of the first scan; bytes between them are skipped."""
    # After the start marker.
    offset = 2
    while (offset := content.find(b"\xff", offset)) >= 0 and offset + 4 <= len(content):
        marker = content[offset + 1]
        if marker == 0xFF:
            offset += 1
        elif marker == 0 or marker in _MARKERS_WITHOUT_LENGTH:
            offset += 2
        elif marker == _FINISH:
            return
        else:
            end = offset + 2 + (content[offset + 2] << 8 | content[offset + 3])
            yield marker, offset, offset + 4, end
            if marker == _SCAN:
                return
            offset = max(end, offset + 4)


def read_header(content: bytes) -> tuple[bytes, bool]:
    """Return the EXIF block of a JPEG, empty if it has none, and True if the header has a frame of a known kind.

    Raises:
        ValueError: it is progressive, of more scans than any encoder writes: each costs the time of a whole image.
    """
    exif = b""
    for marker, _, start, end in iterate_segments(content):
        if marker == _APP1 and not exif and content.startswith(b"Exif\0\0", start):
            exif = content[start:end]
        if marker in _FRAMES:  # EXIF comes before it
            scans = content.count(b"\xff\xda") if marker in _PROGRESSIVE else 1
            if scans > _MAX_SCANS:
                raise ValueError(f"it has {scans} scans, and {_MAX_SCANS} are decoded at most")
            return exif, True
    return exif, False


def decode_strictly(content: bytes, decode: Callable[[bytes], Decoded]) -> tuple[Decoded, str]:
    """Decode a JPEG whose deviations from the standard are known to be harmless, if it has any.

    Args:
        content: the file.
        decode: a decoder that raises ValueError where the library warns.

    Returns:
        What the decoder returned, and the warning that was found harmless; empty where there was none.

    Raises:
        ValueError: the decoder's error; where there are harmless deviations, the one that remains without them.
    """
    try:
        return decode(content), ""
    except ValueError as error:
        first = remaining = error
    for candidate in _strip_deviations(content):
        try:
            return decode(candidate), str(first)
        except ValueError as error:
            remaining = error
    raise remaining


def _strip_deviations(content: bytes) -> Iterator[bytes]:
    """Yield the file without harmless deviations, if it has any; zeros before a marker may be the last of its data."""
    rewritten = _rewrite_header(content)
    if rewritten is None:
        return
    header, scans, sequential = rewritten
    if sequential and END not in scans and scans.count(b"\xff\xda") == 0:
        scans += END
    candidates = [header + _ZEROS.sub(zeros, scans) for zeros in (b"", b"\0")]
    yield from (candidate for candidate in dict.fromkeys(candidates) if candidate != content)


def _rewrite_header(content: bytes) -> tuple[bytes, bytes, bool] | None:
    """Return the header without deviations, the rest, and True if that is one sequential scan; None: no header."""
    parts, before, components, sequential = [START], 2, 0, False
    for marker, start, at, end in iterate_segments(content):
        between = content[before:start]
        if len(between) > _MAX_STRAY_BYTES and between.strip(b"\0\xff"):
            return None
        before = end
        if marker in _FRAMES and at + 6 <= len(content):
            # A frame: precision, height, width (5 bytes), and the number of components.
            components, sequential = content[at + 5], marker in _SEQUENTIAL
        if marker == _SCAN:
            whole = sequential and content[at] == components
            # The last three bytes of a scan's header are the range and precision of its coefficients.
            scan = content[start : end - 3] + (_UNUSED_SCAN_PARAMETERS if sequential else content[end - 3 : end])
            return b"".join([*parts, scan]), content[end:], whole
        parts.append(_correct_segment(marker, content[start:end]))
    return None


def _correct_segment(marker: int, segment: bytes) -> bytes:
    if marker == _APP0 and segment[4:9] == b"JFIF\0":
        # Byte 9 is the major version.
        return segment[:9] + b"\1" + segment[10:]
    return b"" if marker == _APP2 and segment[4:16] == b"ICC_PROFILE\0" else segment
