"""The encoders of texts and documents whose tokens are those of a tokenizer's file, which is a part of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import SCORED, DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, EncodedSamples, TensorSpec
from mlscale.data.encoders.text_encoder import PADDING, TextEncoder, convert_to_bytes
from mlscale.data.encoders.tokenizer import Tokenizer

MOST_BYTES_OF_TOKEN = 8
"""Bytes of text that a token stands for, at the most that is usual: four in English."""
TOKEN = "token"  # noqa: S105 - a unit


@dataclass(frozen=True)
class TokenTextEncoder(TextEncoder):
    """A text as the tokens of a tokenizer, cut to a length or padded with 0.

    The ids are the tokenizer's where its own padding is token 0; else they are one more, so that 0 is always padding
    and nothing else, which the models of texts rely on.

    Args:
        length: tokens of a sample.
        tokenizer: of the texts.
    """

    graph_start: ClassVar[str] = "tokens"
    unit: ClassVar[str] = TOKEN
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        super().__post_init__()
        if (around := self.tokenizer.count_template_tokens()) >= self.length:
            raise ValueError(f"a length of {self.length}, and {around} tokens go around each text")

    @property
    def offset(self) -> int:
        """What is added to an id."""
        return 0 if self.tokenizer.get_id("pad") == PADDING else 1

    @property
    def vocabulary(self) -> int:
        return self.tokenizer.size + self.offset

    @property
    def graph_inputs(self) -> tuple[TensorSpec, ...]:
        return self.inputs

    def describe_raw_input(self) -> dict[str, Any]:
        return {"type": "text", "encoding": "utf-8", "max_bytes": None, "tokenizer": self.tokenizer.digest}

    def describe_settings(self) -> dict[str, Any]:
        return {
            "length": self.length,
            "offset": self.offset,
            "padding": PADDING,
            "unit": TOKEN,
            "tokenizer": self.tokenizer.describe_settings(),
        }

    @classmethod
    def parse_settings(cls, settings: Mapping[str, Any]) -> Self:
        encoder = cls(int(settings["length"]), Tokenizer.parse_settings(settings["tokenizer"]))
        # A later version may number tokens in another way: the model would read other words without an error.
        if (settings["offset"], settings["padding"]) != (encoder.offset, PADDING):
            raise ValueError(f"tokens from {settings['offset']!r} on, padded with {settings['padding']!r}")
        return encoder

    def pack_samples(self, raw: Sequence[str | bytes]) -> EncodedSamples:
        """Return the tokens of texts: the graph begins with them."""
        bad: dict[int, str] = {}
        contents = [_read_text(text, number, bad) for number, text in enumerate(raw)]
        tokens = self.encode_texts(contents)
        # What the tokenizer drops altogether, such as a lone control character, has nothing to be classified by.
        for number in np.flatnonzero((tokens == PADDING).all(1)).tolist():
            bad.setdefault(number, "the tokenizer finds no token in it")
        lengths = np.array([len(content) for content in contents], np.float64)
        return EncodedSamples({INPUT: tokens}, bad, facts={"length": lengths})

    def unpack_samples(self, packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {INPUT: packed[INPUT]}

    def find_bad_rows(self, packed: Mapping[str, NDArray[Any]]) -> dict[int, str]:
        bad = _find_unknown_ids(packed[INPUT], self.vocabulary)
        for row in np.flatnonzero((packed[INPUT] == PADDING).all(1)).tolist():
            bad.setdefault(row, "it has no token but the padding")
        return bad

    def cut_text(self, text: bytes) -> bytes:
        # Where a text of tokens ends is known once it is read; what is far beyond need not be.
        return text[: self.length * MOST_BYTES_OF_TOKEN * 8]

    def decode_tokens(self, rows: NDArray[Any]) -> list[bytes]:
        ids = [(row[row != PADDING] - self.offset).tolist() for row in rows]
        return self.tokenizer.decode_rows(ids)

    def encode_texts(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        # All texts in one call, which the package divides over the cores.
        tokens = np.full((len(texts), self.length), PADDING, np.int64)
        for row, ids in zip(tokens, self.tokenizer.encode_texts(texts, length=self.length), strict=True):
            row[: len(ids)] = ids
            row[: len(ids)] += self.offset
        return tokens

    def write_tokens(self, text: bytes, tokens: NDArray[np.int64]) -> None:
        tokens[:] = self.encode_texts([text])[0]


@dataclass(frozen=True)
class TokenDocumentEncoder(DocumentEncoder):
    """A document as windows of the tokens of a tokenizer; the token of the role `eos` is before it and after it.

    Args:
        length: tokens of context.
        tokenizer: of the documents, with an `eos`.
    """

    graph_start: ClassVar[str] = "tokens"
    unit: ClassVar[str] = TOKEN
    most_bytes_of_token: ClassVar[int] = MOST_BYTES_OF_TOKEN
    packed_name: ClassVar[str] = INPUT
    packed_dtype: ClassVar[type[np.integer[Any]]] = np.int64
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer.get_id("eos") is None:
            raise ValueError("a tokenizer without a token that ends a document")

    @property
    def vocabulary(self) -> int:
        return self.tokenizer.size

    @property
    def end(self) -> int:
        end = self.tokenizer.get_id("eos")
        assert end is not None  # `__post_init__` has refused others
        return end

    def describe_raw_input(self) -> dict[str, Any]:
        return {**super().describe_raw_input(), "tokenizer": self.tokenizer.digest}

    def describe_settings(self) -> dict[str, Any]:
        tokenizer = self.tokenizer.describe_settings()
        return {"length": self.length, "end": self.end, "unit": TOKEN, "tokenizer": tokenizer}

    @classmethod
    def parse_settings(cls, settings: Mapping[str, Any]) -> Self:
        encoder = cls(int(settings["length"]), Tokenizer.parse_settings(settings["tokenizer"]))
        if settings["end"] != encoder.end:
            raise ValueError(f"documents that are ended by {settings['end']!r}")
        return encoder

    def unpack_samples(self, packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {INPUT: packed[INPUT], SCORED: packed[SCORED]}

    def find_bad_rows(self, packed: Mapping[str, NDArray[Any]]) -> dict[int, str]:
        return {**_find_unknown_ids(packed[INPUT], self.vocabulary), **super().find_bad_rows(packed)}

    def tokenize_document(self, sample: str | bytes) -> NDArray[Any]:
        content = convert_to_bytes(sample)
        if not content:
            raise ValueError("it is empty")
        return self.tokenize_documents([content])[0]

    def tokenize_documents(self, contents: Sequence[bytes]) -> list[NDArray[Any]]:
        """Return the tokens of each document, without its end.

        Raises:
            ValueError: one holds the token that ends a document.
        """
        documents = [np.array(ids, np.int64) for ids in self.tokenizer.encode_texts(contents)]
        for tokens in documents:
            # Special tokens in a text are read as plain text, so that only a vocabulary of words can have one.
            if (tokens == self.end).any():
                at = int(np.flatnonzero(tokens == self.end)[0])
                raise ValueError(f"token {at + 1} is {dict(self.tokenizer.roles)['eos']}, which ends a document")
        return documents

    def decode_tokens(self, rows: Sequence[NDArray[Any]]) -> list[bytes]:
        return self.tokenizer.decode_rows([row.tolist() for row in rows])


def _read_text(text: str | bytes, number: int, bad: dict[int, str]) -> bytes:
    """Return a text as UTF-8; an empty one if it is bad, with the reason in `bad`."""
    try:
        content = convert_to_bytes(text)
    except ValueError as error:
        bad[number] = str(error)
        return b""
    if not content:
        bad[number] = "it is empty"
    return content


def _find_unknown_ids(tokens: NDArray[Any], vocabulary: int) -> dict[int, str]:
    # A graph that looks up a row that its embedding does not have fails for all samples of a batch.
    is_unknown = (tokens < 0) | (tokens >= vocabulary)
    rows = np.flatnonzero(is_unknown.any(1)).tolist()
    return {
        row: f"it has the token {tokens[row][is_unknown[row]][0]}, and ids are 0 to {vocabulary - 1}" for row in rows
    }
