"""The summary that belongs to an encoder."""

from __future__ import annotations

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.summaries.image_summary import ImageSummary
from mlscale.data.encoders.summaries.input_summary import InputSummary
from mlscale.data.encoders.summaries.table_summary import TableSummary
from mlscale.data.encoders.summaries.tensor_summary import TensorSummary
from mlscale.data.encoders.summaries.text_summary import DocumentSummary, TextSummary
from mlscale.data.encoders.summaries.token_summary import TokenDocumentSummary, TokenTextSummary
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
