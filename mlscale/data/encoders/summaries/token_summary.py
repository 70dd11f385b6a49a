"""The summary of texts that the graph takes as tokens: of the text that the tokenizer makes of them again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import SCORED
from mlscale.data.encoders.encoder import INPUT, EncodedSamples
from mlscale.data.encoders.summaries.text_summary import DocumentSummary, Texts, TextSummary
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder, TokenTextEncoder


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
