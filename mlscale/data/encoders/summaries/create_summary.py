"""The summary that belongs to an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import SCORED, DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, EncodedSamples, Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.summaries.input_summary import MAX_NUMBERS, InputSummary, SummaryColumns, get_fact
from mlscale.data.encoders.summaries.table_summary import TableSummary
from mlscale.data.encoders.summaries.tensor_summary import TensorSummary, write_arrays
from mlscale.data.encoders.summaries.text_summary import DocumentSummary, Texts, TextSummary
from mlscale.data.encoders.summaries.word_table import WordTable
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder, TokenTextEncoder


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


_COLOURS = ("red", "green", "blue")
_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's conversion to L
_STATISTICS = ("brightness", "contrast", "sharpness")


@dataclass(frozen=True)
class ImageSummary(InputSummary):
    """`brightness` and `contrast`, mean and standard deviation of the grey image; `sharpness`, the deviation of its
    Laplacian; `width` and `height` of the image that was sent; the mean of each channel: `red`, `green`, `blue`.
    """

    sample_kind: ClassVar[str] = "npy"

    def summarize_samples(self, packed: EncodedSamples) -> SummaryColumns:
        (pixels,) = packed.tensors.values()
        channels, height, width = pixels.shape[1:]
        statistics = np.empty((len(_STATISTICS) + (channels if channels > 1 else 0), len(pixels)))
        step = max(1, MAX_NUMBERS // max(1, channels * height * width))
        with np.errstate(all="ignore"):  # arrays of a client may have infinities
            for start in range(0, len(pixels), step):
                statistics[:, start : start + step] = _measure_pixels(pixels[start : start + step])
        # A grey image has its brightness alone: the mean of its channel would be the same column twice.
        names = _COLOURS if channels == len(_COLOURS) else [f"mean_{channel}" for channel in range(channels)]
        return {
            **dict(zip(_STATISTICS, statistics, strict=False)),
            "width": get_fact(packed, "width", width),
            "height": get_fact(packed, "height", height),
            **dict(zip(names, statistics[len(_STATISTICS) :], strict=False)),
        }

    def write_samples(self, packed: EncodedSamples, numbers: Sequence[int]) -> list[bytes]:
        (pixels,) = packed.tensors.values()
        return [write_arrays({"": pixels[number]}) for number in numbers]


def _measure_pixels(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return the statistics of images (n, c, h, w), a row for each."""
    # float32 is exact for bytes, and half the memory of float64.
    wide = pixels.astype(np.float32)
    channels = wide.shape[1]
    weights = _GREY_WEIGHTS if channels == len(_GREY_WEIGHTS) else np.full(channels, 1 / channels, np.float32)
    grey = wide[:, 0] if channels == 1 else np.tensordot(weights, wide, (0, 1))
    rows = [grey.mean((1, 2)), grey.std((1, 2)), _compute_sharpness(grey)]
    return np.stack([*rows, *(wide.mean((2, 3)).T if channels > 1 else ())])


def _compute_sharpness(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the standard deviation of the 4-neighbour Laplacian of grey images (n, h, w)."""
    # Only pixels with four neighbours count: a border would look like an edge.
    if min(grey.shape[1:]) < 3:
        return np.full(len(grey), np.nan, np.float32)
    # In place: a temporary array for each neighbour would take twice the time.
    laplacian = -4 * grey[:, 1:-1, 1:-1]
    laplacian += grey[:, :-2, 1:-1]
    laplacian += grey[:, 2:, 1:-1]
    laplacian += grey[:, 1:-1, :-2]
    laplacian += grey[:, 1:-1, 2:]
    spread: NDArray[np.float32] = laplacian.std((1, 2))
    return spread
