"""Passages of documents, from a sentence to thousands of bytes: texts as long as those that clients may send."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

# The end of a sentence, or of a line after which no sentence continues: wrapped prose continues with a small letter.
_BOUNDARY = re.compile(rb"(?<=[.!?])\s+|(?<=\xe3\x80\x82)\s*|\s*\n(?![a-z])\s*")
# Each sentence alone, and runs of them.
_SCALES = (1, *(2**power for power in range(5, 14)))
_PLAIN = 256  # bytes of a piece of text that has no boundaries
_MOST_DOCUMENTS, _MOST_BYTES = 4096, 1 << 22
_MOST_PASSAGES, _MOST_WINDOWS = 192, 256
_FEWEST_GROUPS = 16


class Passage(NamedTuple):
    """A part of a document that begins and ends where sentences do.

    Attributes:
        text: its bytes.
        group: a number that it shares with the passages that are not independent of it: those of the same document, or
            of the same part of one where documents are few.
    """

    text: bytes
    group: int


def cut_passages(documents: Sequence[bytes], count_windows: Callable[[int], int]) -> list[Passage]:
    """Return passages of all lengths, from a sentence to 8,192 bytes or a whole document; of each octave of
    lengths some, evenly spread over the documents.

    A short document is one passage. Passages of different lengths overlap: they have a group in common.

    Args:
        documents: texts that are not empty.
        count_windows: returns how many passes of the model a text of so many bytes takes.
    """
    selected = _limit_documents(documents)
    part = max(1, -(-sum(map(len, selected)) // _FEWEST_GROUPS))
    groups: dict[tuple[int, int], int] = {}
    octaves: dict[int, list[Passage]] = {}
    for number, document in enumerate(selected):
        for start, stop in sorted(set(_list_spans(document, part))):
            # A whole document stays as its file is; a client sends no blanks around a part of it.
            is_whole = stop - start == len(document)
            text = document if is_whole else document[start:stop].strip()
            if text:
                group = groups.setdefault((number, start // part), len(groups))
                octaves.setdefault(len(text).bit_length(), []).append(Passage(text, group))
    return [passage for _, passages in sorted(octaves.items()) for passage in _thin_out(passages, count_windows)]


def _limit_documents(documents: Sequence[bytes]) -> list[bytes]:
    """Return documents of a few megabytes, evenly spread: more would take minutes to cut."""
    rows = np.unique(np.linspace(0, len(documents) - 1, min(len(documents), _MOST_DOCUMENTS)).astype(np.int64))
    return [documents[row][: max(_PLAIN, _MOST_BYTES // len(rows))] for row in rows.tolist()]


def _list_spans(document: bytes, part: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each passage of a document, at every scale; none of two parts of `part` bytes, for
    they would share their words."""
    ends = _find_ends(document)
    for scale in _SCALES:
        start = 0
        for end in ends:
            if end - start >= scale or end == len(document) or start // part != end // part:
                yield start, end
                start = end


def _find_ends(document: bytes) -> list[int]:
    """Return where sentences end; text without sentences is cut where it happens to be."""
    ends, last = [], 0
    for end in [*(match.end() for match in _BOUNDARY.finditer(document) if match.end()), len(document)]:
        ends += [at for at in range(last + _PLAIN, end - _PLAIN, _PLAIN) if document[at] & 0xC0 != 0x80]
        last = end
        ends.append(end)
    return ends


def _thin_out(passages: list[Passage], count_windows: Callable[[int], int]) -> list[Passage]:
    """Return as many passages of one octave as the model computes in a moment, evenly spread."""
    windows = max(count_windows(len(passage.text)) for passage in passages)
    most = min(len(passages), _MOST_PASSAGES, max(1, _MOST_WINDOWS // windows))
    return [passages[row] for row in np.linspace(0, len(passages) - 1, most).astype(np.int64).tolist()]
