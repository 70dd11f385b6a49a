"""Summaries of texts, whose graph begins with bytes or with tokens; and the summary that belongs to an encoder."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders import document_encoder, text_encoder
from mlscale.data.encoders.document_encoder import SCORED, DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, EncodedSamples, Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.summaries.input_summary import (
    MAX_NUMBERS,
    ImageSummary,
    InputSummary,
    TableSummary,
    TensorSummary,
    get_fact,
)
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder, TokenTextEncoder
from mlscale.task_types.event_forms import SummaryColumns

MAX_WORDS = 4096
_WORD = re.compile(rb"[0-9A-Za-z'\x80-\xff]+")


@dataclass(frozen=True)
class WordTable:
    """Known words.

    Args:
        words: in lower case, as UTF-8; at most 4,096.
    """

    words: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def collect_words(cls, texts: Sequence[bytes]) -> WordTable:
        """Return the most frequent words of texts; of equally frequent ones those first in the alphabet."""
        # Spelling in capitals, as at the start of a sentence, makes no other word.
        counts = Counter(word for text in texts for word in _WORD.findall(text.lower()))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls(tuple(word for word, _ in ranked[:MAX_WORDS]))

    @cached_property
    def _known(self) -> frozenset[bytes]:
        return frozenset(self.words)

    def count_words(self, text: bytes) -> tuple[int, int]:
        """Return the number of words of a text, and of those that are not known."""
        words = _WORD.findall(text.lower())
        return len(words), sum(word not in self._known for word in words)


_ALPHABETS = ("letters", "digits", "spaces", "punctuation", "non_ascii")
_OTHER = len(_ALPHABETS)
# What `surrogateescape` makes of the bytes 0x80 to 0xFF that are not UTF-8.
_SURROGATES = range(0xDC80, 0xDD00)


def _build_alphabet_table() -> NDArray[np.uint8]:
    """Return the number of the alphabet of each byte."""
    table = np.full(256, _OTHER, np.uint8)
    for byte in range(256):
        character = chr(byte)
        # Part of a character of several bytes, which `chr` would read as Latin-1.
        if byte >= 0x80:
            table[byte] = 4
        elif character.isalpha():
            table[byte] = 0
        elif character.isdigit():
            table[byte] = 1
        elif character.isspace():
            table[byte] = 2
        elif character.isprintable():
            table[byte] = 3
    return table


_TABLE = _build_alphabet_table()


class Texts(NamedTuple):
    """The bytes of texts one after the other, their lengths, and which of them were cut."""

    content: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    is_cut: NDArray[np.bool_]


@dataclass(frozen=True)
class TextSummary(InputSummary):
    """`length` in bytes, `words`, and shares of the bytes: `letters`, `digits`, `spaces`, `punctuation`, `non_ascii`,
    `invalid` (not UTF-8); `unknown_words`, the share of words that the reference does not have.

    All but the length are of the part that the model reads.

    Args:
        words: of the reference; None: the share of other words is not known.
    """

    sample_kind: ClassVar[str] = "text"
    words: WordTable | None = field(default=None)

    def summarize_samples(self, packed: EncodedSamples) -> SummaryColumns:
        parts = [self._summarize_texts(texts) for texts in _split_texts(self._join_texts(packed))]
        columns: SummaryColumns = {
            name: np.concatenate([part[name] for part in parts]) if parts else np.zeros(0)
            for name in ("length", "words", *_ALPHABETS, "invalid", *(("unknown_words",) if self.words else ()))
        }
        columns["length"] = get_fact(packed, "length", np.asarray(columns["length"], np.float64))
        return columns

    def write_samples(self, packed: EncodedSamples, numbers: Sequence[int]) -> list[bytes]:
        contents = self.list_texts(packed)
        return [contents[number] for number in numbers]

    def list_texts(self, packed: EncodedSamples) -> list[bytes]:
        """Return the bytes of each text, as far as the model reads them."""
        texts = self._join_texts(packed)
        # One copy of all bytes, and slices of it.
        ends = np.cumsum(texts.lengths)
        content = texts.content.tobytes()
        return [content[end - length : end] for end, length in zip(ends.tolist(), texts.lengths.tolist(), strict=True)]

    def _join_texts(self, packed: EncodedSamples) -> Texts:
        content, lengths = packed.tensors[text_encoder.BYTES], packed.tensors[text_encoder.LENGTHS]
        lengths = np.clip(lengths, 0, content.shape[1])  # a client may send any number
        # A text that fills all places may be longer: its last character or word may be cut.
        return Texts(content[np.arange(content.shape[1]) < lengths[:, None]], lengths, lengths == content.shape[1])

    def _summarize_texts(self, texts: Texts) -> dict[str, NDArray[np.float64]]:
        size, length = len(texts.lengths), texts.lengths.astype(np.float64)
        # One bincount over (text, alphabet) cells counts all texts at once.
        rows = np.repeat(np.arange(size), texts.lengths)
        cells = np.bincount(rows * (_OTHER + 1) + _TABLE[texts.content], minlength=size * (_OTHER + 1))
        counts = cells.reshape(size, -1).T
        with np.errstate(invalid="ignore"):  # of an empty text there is no share
            columns = {name: counts[number] / length for number, name in enumerate(_ALPHABETS)}
            columns["invalid"] = _count_invalid_bytes(texts, counts[4] > 0) / length
            words, unknown = _count_words(self.words or WordTable(()), texts)
            columns |= {"length": length, "words": words.astype(np.float64), "unknown_words": unknown / words}
        return columns


@dataclass(frozen=True)
class DocumentSummary(TextSummary):
    """As of a text, of all windows of a document. Validation samples are blocks of equal length, which say nothing of
    the length of documents."""

    unmeasured: ClassVar[frozenset[str]] = frozenset({"length", "words"})

    def _join_texts(self, packed: EncodedSamples) -> Texts:
        windows, scored = packed.tensors[document_encoder.BYTES], packed.tensors[document_encoder.SCORED]
        positions = np.arange(windows.shape[1])
        # Windows overlap: each byte is in the one that scores it. The end of a document is not one of its bytes.
        is_own = (positions > scored[:, :1]) & (positions <= scored[:, 1:]) & (windows != document_encoder.END)
        by_window = is_own.sum(1)
        if packed.counts is None:
            # Without counts these are blocks of text, which may end within a character.
            return Texts(windows[is_own], by_window, np.ones(len(windows), np.bool_))
        starts = np.cumsum(packed.counts) - packed.counts
        lengths = np.add.reduceat(by_window, starts) if len(starts) else by_window
        return Texts(windows[is_own], lengths, np.zeros(len(lengths), np.bool_))


def _split_texts(texts: Texts) -> Iterator[Texts]:
    """Yield groups of texts with a bounded number of bytes each, or of one text."""
    ends, start = np.cumsum(texts.lengths), 0
    while start < len(ends):
        before = int(ends[start] - texts.lengths[start])
        stop = max(start + 1, int(np.searchsorted(ends, before + MAX_NUMBERS, side="right")))
        yield Texts(texts.content[before : ends[stop - 1]], texts.lengths[start:stop], texts.is_cut[start:stop])
        start = stop


def _count_words(known: WordTable, texts: Texts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the words of each text, and those that are not known."""
    ends = np.cumsum(texts.lengths)
    counts = [
        known.count_words(texts.content[end - length : end].tobytes())
        for end, length in zip(ends.tolist(), texts.lengths.tolist(), strict=True)
    ]
    words, unknown = np.array(counts, np.int64).reshape(-1, 2).T
    return words, unknown


def _count_invalid_bytes(texts: Texts, is_candidate: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the bytes of each text that are not UTF-8."""
    counts, ends = np.zeros(len(texts.lengths), np.int64), np.cumsum(texts.lengths)
    for row in np.flatnonzero(is_candidate).tolist():  # ASCII alone is UTF-8
        content = texts.content[ends[row] - texts.lengths[row] : ends[row]].tobytes()
        # `final` is false where the text was cut: half of a character at its end is not a mistake.
        text, _ = codecs.utf_8_decode(content, "surrogateescape", not texts.is_cut[row])
        # Most texts with other characters are valid: each search runs in C, and the loop is for those that are not.
        if any(character in text for character in _FIRST_SURROGATES):
            counts[row] = sum(ord(character) in _SURROGATES for character in text)
    return counts


_FIRST_SURROGATES = tuple(map(chr, _SURROGATES))


@dataclass(frozen=True)
class TokenTextSummary(TextSummary):
    """As of a text. A tokenizer may have changed case or spaces: the same for the reference and for production.

    Args:
        words: see `TextSummary`.
        encoder: of the texts.
    """

    encoder: TokenTextEncoder | None = None

    def _join_texts(self, packed: EncodedSamples) -> Texts:
        assert self.encoder is not None
        tokens = packed.tensors[INPUT]
        # A text that fills all places may be longer: its last character or word may be cut.
        return _join(self.encoder.decode_tokens(tokens), tokens[:, -1] != 0)


@dataclass(frozen=True)
class TokenDocumentSummary(DocumentSummary):
    """As of a document.

    Args:
        words: see `TextSummary`.
        encoder: of the documents.
    """

    encoder: TokenDocumentEncoder | None = None

    def _join_texts(self, packed: EncodedSamples) -> Texts:
        assert self.encoder is not None
        windows, scored = packed.tensors[INPUT], packed.tensors[SCORED]
        positions = np.arange(windows.shape[1])
        # Windows overlap: each token is in the one that scores it. The end of a document is not part of its text.
        is_own = (positions > scored[:, :1]) & (positions <= scored[:, 1:]) & (windows != self.encoder.end)
        own = [row[chosen] for row, chosen in zip(windows, is_own, strict=True)]
        if packed.counts is None:
            # Without counts these are blocks of text, which may end within a character.
            return _join(self.encoder.decode_tokens(own), np.ones(len(own), np.bool_))
        ends = np.cumsum(packed.counts)
        # A bad document has no window, and its text is empty.
        documents = (
            [
                np.concatenate([windows[0][:0], *own[end - count : end]])
                for end, count in zip(ends.tolist(), packed.counts.tolist(), strict=True)
            ]
            if len(own)
            else [np.zeros(0, np.int64)] * len(ends)
        )
        return _join(self.encoder.decode_tokens(documents), np.zeros(len(documents), np.bool_))


def _join(contents: list[bytes], is_cut: NDArray[np.bool_]) -> Texts:
    # In bytes, as of texts whose graph begins with them: the columns of both have the same meaning.
    lengths = np.array([len(content) for content in contents], np.int64)
    return Texts(np.frombuffer(b"".join(contents), np.uint8), lengths, is_cut)


def create_summary(encoder: Encoder, words: WordTable | None = None) -> InputSummary:
    """Return the summary of what an encoder packs.

    Args:
        encoder: of the samples.
        words: of the reference profile, for texts.
    """
    if isinstance(encoder, TableEncoder):
        return TableSummary(encoder)
    if isinstance(encoder, ImageEncoder):
        return ImageSummary()
    # Before the classes that they are derived from, whose graphs take bytes.
    if isinstance(encoder, TokenTextEncoder):
        return TokenTextSummary(words, encoder)
    if isinstance(encoder, TokenDocumentEncoder):
        return TokenDocumentSummary(words, encoder)
    if isinstance(encoder, TextEncoder):
        return TextSummary(words)
    if isinstance(encoder, DocumentEncoder):
        return DocumentSummary(words)
    # What a user's own data module gives has no names that its encoder knows.
    return TensorSummary()
