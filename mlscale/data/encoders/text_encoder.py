"""The encoder of texts: bytes as tokens, cut and padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import INPUT, EncodedSamples, Encoder, TensorSpec, name_kind

PADDING, OFFSET = 0, 1
"""The token after the end of a text, and what is added to each byte, so that no byte is the padding."""
BYTES, LENGTHS = "bytes", "lengths"
"""The tensors that a graph takes: the bytes of texts, uint8 (n, length), and their number, int64 (n,)."""
MOST_TOKENS = 1 << 20


@dataclass(frozen=True)
class TextEncoder(Encoder):
    """A text as its UTF-8 bytes, cut to a length or padded with 0; bytes that are not UTF-8 are taken as they are.

    Args:
        length: tokens of a sample.

    Attributes:
        unit: what a token is.
    """

    kind: ClassVar[str] = "text"
    unit: ClassVar[str] = "byte"
    graph_start: ClassVar[str] = "bytes"
    fact_names: ClassVar[tuple[str, ...]] = ("length",)
    length: int

    def __post_init__(self) -> None:
        check_length(self.length)

    @property
    def vocabulary(self) -> int:
        """The number of tokens, the padding among them."""
        return 256 + OFFSET

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(INPUT, "int64", (self.length,)),)

    @property
    def graph_inputs(self) -> tuple[TensorSpec, ...]:
        return TensorSpec(BYTES, "uint8", (self.length,)), TensorSpec(LENGTHS, "int64", ())

    def describe_raw_input(self) -> dict[str, Any]:
        return {"type": "text", "encoding": "utf-8", "max_bytes": self.length}

    def describe_settings(self) -> dict[str, Any]:
        return {"length": self.length, "offset": OFFSET, "padding": PADDING, "unit": "byte"}

    @classmethod
    def parse_settings(cls, settings: Mapping[str, Any]) -> Self:
        if (settings["unit"], settings["offset"], settings["padding"]) != ("byte", OFFSET, PADDING):
            raise ValueError(f"tokens of the unit {settings['unit']!r}, padded with {settings['padding']!r}")
        return cls(int(settings["length"]))

    def encode_sample(self, raw: str | bytes) -> dict[str, NDArray[Any]]:
        content = convert_to_bytes(raw)
        if not content:
            raise ValueError("it is empty")
        tokens = np.zeros(self.length, np.int64)
        self.write_tokens(content, tokens)
        return {INPUT: tokens}

    def pack_samples(self, raw: Sequence[str | bytes]) -> EncodedSamples:
        """Return texts as the graph takes them: their bytes, and how many there are."""
        content, lengths = np.zeros((len(raw), self.length), np.uint8), np.zeros(len(raw), np.int64)
        whole = np.zeros(len(raw))
        bad: dict[int, str] = {}
        for number, text in enumerate(raw):
            try:
                given = convert_to_bytes(text)
                whole[number] = len(given)
                given = given[: self.length]
                if not given:
                    raise ValueError("it is empty")
            except ValueError as error:
                bad[number] = str(error)
                continue
            content[number, : len(given)] = np.frombuffer(given, np.uint8)
            lengths[number] = len(given)
        return EncodedSamples({BYTES: content, LENGTHS: lengths}, bad, facts={"length": whole})

    def unpack_samples(self, packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the tokens of texts from their bytes."""
        tokens = packed[BYTES].astype(np.int64) + OFFSET
        tokens[np.arange(self.length) >= packed[LENGTHS][:, None]] = PADDING
        return {INPUT: tokens}

    def find_bad_rows(self, packed: Mapping[str, NDArray[Any]]) -> dict[int, str]:
        lengths = packed[LENGTHS]
        bad = np.flatnonzero((lengths < 1) | (lengths > self.length)).tolist()
        return {row: f"its length is {lengths[row]}, not 1 to {self.length}" for row in bad}

    def cut_text(self, text: bytes) -> bytes:
        """Return the part of a text that counts, as far as it is known without its tokens."""
        return text[: self.length]

    def decode_tokens(self, rows: NDArray[Any]) -> list[bytes]:
        """Return the text of each row of tokens, (n, length)."""
        return [(row[row != PADDING] - OFFSET).astype(np.uint8).tobytes() for row in rows]

    def encode_texts(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the tokens of texts, int64 (n, length); an empty one is padding alone."""
        tokens = np.full((len(texts), self.length), PADDING, np.int64)
        for row, text in zip(tokens, texts, strict=True):
            self.write_tokens(text, row)
        return tokens

    def write_tokens(self, text: bytes, tokens: NDArray[np.int64]) -> None:
        """Write the tokens of a text over the first ones of `tokens`, int64 (length,)."""
        values = np.frombuffer(text[: self.length], np.uint8)
        # In int64: in uint8 the byte 255 would wrap around to padding.
        np.add(values, OFFSET, out=tokens[: len(values)], dtype=np.int64)


def check_length(length: int) -> None:
    """Raise an error unless a model can take so many tokens.

    Raises:
        ValueError: they are none, or too many.
    """
    if not 1 <= length <= MOST_TOKENS:
        raise ValueError(f"a length of {length}")


def convert_to_bytes(text: str | bytes) -> bytes:
    """Return a text as UTF-8; bytes that were not UTF-8 when it was read become the same bytes again.

    Raises:
        ValueError: it is no text, or holds half of a surrogate pair, which no bytes stand for.
    """
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise ValueError(f"it is {name_kind(text)}, not a text")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start + 1} is half of a surrogate pair") from None


def as_tokens(texts: Sequence[str | bytes], length: int) -> NDArray[np.int64]:
    """Return texts as a model takes them, int64 (n, length): UTF-8 bytes plus one, cut or padded by 0 to `length`."""
    return TextEncoder(length).encode_texts([convert_to_bytes(text) for text in texts])
