"""Read an encoder from its document: every kind, whatever has written it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlscale.contracts import expect_format
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder, compute_definition_digest
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.data.encoders.token_encoders import TOKEN, TokenDocumentEncoder, TokenTextEncoder
from mlscale.errors import MLScaleError, describe_wrong_content

_CLASSES: Mapping[str, type[Encoder]] = {
    encoder.kind: encoder for encoder in (TableEncoder, ImageEncoder, TextEncoder, DocumentEncoder, TensorEncoder)
}
_TOKEN_CLASSES: Mapping[str, type[Encoder]] = {
    encoder.kind: encoder for encoder in (TokenTextEncoder, TokenDocumentEncoder)
}
"""The classes of the same kinds for texts whose tokens are not bytes."""


def parse_encoder(document: Mapping[str, Any], *, where: str) -> Encoder:
    """Return the encoder of a document (`Encoder.to_document`).

    Raises:
        MLScaleError: it is of a later format, corrupt, was edited, or its samples were decoded in another way.
    """
    expect_format("encoder", document, where)
    try:
        kind, settings = str(document["kind"]), document["settings"]
        # Before it is parsed: an edited range or category would encode otherwise than training did.
        if document["digest"] != compute_definition_digest(kind, settings):
            raise MLScaleError(
                "the encoder is not the one that was written",
                where=where,
                why=f"its digest is not {document['digest']}: the file was edited, or is corrupt",
                fix="restore the file from a copy",
            )
        classes = _TOKEN_CLASSES if settings.get("unit") == TOKEN else _CLASSES
        return classes[kind].parse_settings(settings)
    # The file may come from anywhere: whatever its settings lack, or hold in excess, is one error.
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MLScaleError(
            "the encoder can't be read",
            where=where,
            why=describe_wrong_content(error),
            fix="restore the file from a copy",
        ) from error


def read_encoder(path: Path) -> Encoder:
    """Return the encoder of a file.

    Raises:
        MLScaleError: the file can't be read, or see `parse_encoder`.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MLScaleError(
            "the encoder can't be read", where=str(path), why=str(error), fix="restore the file from a copy"
        ) from error
    return parse_encoder(document if isinstance(document, dict) else {}, where=str(path))
