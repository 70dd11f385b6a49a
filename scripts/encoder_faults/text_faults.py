"""Faults of a text's encoder: other code, or other constants of the graph."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.data.encoders.text_encoder import TextEncoder, convert_to_bytes
from scripts.encoder_faults.altered_servable import Fault, export_encoder
from scripts.encoder_faults.changed_constants import change_constants


@dataclass(frozen=True)
class OtherTextEncoder(TextEncoder):
    """Makes tokens by a function of the text and the length."""

    tokenize: Callable[[bytes, int], Sequence[int]] = lambda text, length: ()
    pad: int = 0
    in_front: bool = False

    def encode_sample(self, raw: str | bytes) -> dict[str, NDArray[Any]]:
        tokens = list(self.tokenize(convert_to_bytes(raw), self.length))[: self.length]
        padding = [self.pad] * (self.length - len(tokens))
        return {INPUT: np.array(padding + tokens if self.in_front else tokens + padding, np.int64)}


def _alter_texts(encoder: Encoder, content: bytes, what: str, **changes: Any) -> Fault:
    assert isinstance(encoder, TextEncoder)
    changes.setdefault("tokenize", lambda text, length: [byte + 1 for byte in text])
    stored = OtherTextEncoder(encoder.length, **changes)
    return Fault(f"code: {what}", ("token", "shape"), stored, content)


def plant_characters(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    def tokenize(text: bytes, length: int) -> Iterator[int]:
        return (min(ord(character), 255) + 1 for character in text.decode(errors="replace"))

    return _alter_texts(encoder, content, "a token for a character", tokenize=tokenize)


def plant_offset(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    choice = draw.choice(("offset", "padding", "in front", "graph offset", "graph padding"))
    if choice.startswith("graph"):
        name, number = f"encoder/{choice.split()[1]}", draw.choice((2, 3, 256))

        def change(constant: str, value: NDArray[Any]) -> NDArray[Any] | None:
            return np.array(number) if constant == name else None

        return Fault(f"{choice} {number}", ("token", "shape"), encoder, change_constants(content, change))
    if choice == "offset":
        more = draw.choice((0, 2, 3))
        return _alter_texts(encoder, content, f"offset {more}", tokenize=lambda text, length: [b + more for b in text])
    changes: dict[str, Any] = {"in_front": True} if choice == "in front" else {"pad": draw.choice((1, 256))}
    return _alter_texts(encoder, content, choice, **changes)


def plant_length(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    assert isinstance(encoder, TextEncoder)
    length = encoder.length - draw.randint(1, encoder.length // 2)
    if draw.random() < 0.5:
        shorter = TextEncoder(length)
        return Fault(f"document: length {length}", ("token", "shape"), shorter, export_encoder(shorter))
    return _alter_texts(
        encoder,
        content,
        f"cut after {length}",
        tokenize=lambda text, _: [byte + 1 for byte in text[:length]],
    )
