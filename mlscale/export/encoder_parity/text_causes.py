"""Name the token of a text that a servable encodes otherwise than training, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.text_encoder import convert_to_bytes
from mlscale.export.encoder_parity.difference import Cause, Finding

Tokens = NDArray[np.int64]


def find_text_difference(
    trained: Tokens, exported: Tokens, texts: Sequence[str | bytes], padding: int
) -> Finding | None:
    """Return the first token that differs; None where all are equal.

    Args:
        trained, exported: tokens, int64 (n, length) each, padded at the end.
        texts: the raw samples.
        padding: what training pads with.
    """
    width = min(trained.shape[1], exported.shape[1])
    differs = (trained[:, :width] != exported[:, :width]).any(1)
    if trained.shape == exported.shape and not differs.any():
        return None
    if not differs.any():
        cause, detail, row, token = Cause.LENGTH, f"{exported.shape[1]}, not {trained.shape[1]}", 0, width
    else:
        row = int(np.flatnonzero(differs)[0])
        token = int(np.flatnonzero(trained[row, :width] != exported[row, :width])[0])
        cause, detail = _explain(trained[:, :width], exported[:, :width], texts, padding)
    first, second = (str(side[row, token]) if token < side.shape[1] else "nothing" for side in (trained, exported))
    return Finding(f"token {token + 1}", row, (first, second), cause, detail)


def _explain(trained: Tokens, exported: Tokens, texts: Sequence[str | bytes], padding: int) -> tuple[Cause, str]:
    contents = [convert_to_bytes(text) for text in texts]
    width = trained.shape[1]
    lengths = np.array([min(len(content), width) for content in contents])
    is_text = np.arange(width) < lengths[:, None]
    wrong = trained != exported
    # First the causes that change all of the text, or none of it: they are the surest.
    if wrong[is_text].all():
        shifts = np.unique((exported - trained)[is_text])
        if len(shifts) == 1:
            return Cause.OFFSET, f"{shifts[0]:+d} to what training adds"
    if not wrong[is_text].any():
        return Cause.PADDING, f"{np.unique(exported[wrong])[0]}, not {padding}"
    # A zero byte that is taken for the end of the text.
    if (exported[wrong & is_text] == padding).all() and (trained[wrong & is_text] == trained[is_text].min()).all():
        zeros = [position for content in contents for position in [content.find(b"\0")] if position >= 0]
        if zeros and not wrong[~is_text].any():
            return Cause.PADDING, "a zero byte becomes padding"
    if all(np.array_equal(np.roll(row, width - size), other) for row, other, size in _zip(trained, exported, lengths)):
        return Cause.PADDING, "in front of the text"
    if cut := _find_cut(trained, exported):
        return Cause.LENGTH, f"after {cut} tokens"
    rows = np.flatnonzero(wrong.any(1))
    if all(_is_end(contents[row], exported[row]) for row in rows):
        return Cause.LENGTH, "the end is taken, not the beginning"
    if not any(contents[row].isascii() for row in rows):
        return Cause.BYTE_OR_CHARACTER, ""
    return Cause.UNKNOWN, ""


def _zip(trained: Tokens, exported: Tokens, lengths: NDArray[np.int64]) -> Any:
    return zip(trained, exported, lengths.tolist(), strict=True)


def _find_cut(trained: Tokens, exported: Tokens) -> int:
    """Return the number of tokens after which the exported rows are constant, and as training before; 0 for none."""
    wrong = (trained != exported).any(0)
    cut = int(np.flatnonzero(wrong)[0])
    rest = exported[:, cut:]
    return cut if cut and (rest == rest[0, 0]).all() else 0


def _is_end(content: bytes, tokens: Tokens) -> bool:
    """Return whether the tokens are those of the end of a text that is too long."""
    width = len(tokens)
    if len(content) <= width:
        return False
    # What is added to a byte is the same for all.
    return len(np.unique(tokens - np.frombuffer(content[-width:], np.uint8))) == 1
