"""The tokens of the documents of a shard, until its files are written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import write_bytes
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
from mlscale.data.inspection.shared_documents import hash_document
from mlscale.data.text.documents import Document
from mlscale.data.text.token_arrays import choose_token_type
from mlscale.data.text.token_checks import SUMS_SUFFIX, compute_block_sums
from mlscale.data.text.token_maps import ENDS_SUFFIX, TOKENS_SUFFIX
from mlscale.errors import MLScaleError

FILE_MODE = 0o644


class CollectedTokens:
    """Collects the tokens of a shard, and writes its files.

    Args:
        encoder: of the documents.
    """

    def __init__(self, encoder: TokenDocumentEncoder) -> None:
        self._encoder, self._kind = encoder, choose_token_type(encoder.vocabulary).newbyteorder("<")
        self._unknown = encoder.tokenizer.get_id("unk")
        self._rows: list[NDArray[Any]] = []
        self._sizes: list[int] = []
        self._hashes: list[int] = []
        self._text_bytes = self._unknown_tokens = 0

    def add_documents(self, documents: Iterable[Document]) -> None:
        """Add the tokens of documents.

        Raises:
            MLScaleError: one of them can't be tokenised.
        """
        documents = list(documents)
        try:
            rows = self._encoder.tokenize_documents([document.text for document in documents])
        except ValueError as error:
            names = f"{documents[0].name} to {documents[-1].name}"
            raise MLScaleError(
                "a document can't be tokenised",
                where="data.train",
                why=f"{error}; it is one of {names}",
                fix="data.tokenizer=<another file>, in which only the end of a document is that token",
            ) from error
        for row, document in zip(rows, documents, strict=True):
            # The end of each is part of the file: blocks of all text are then one span of it.
            self._rows.append(np.append(row, self._encoder.end).astype(self._kind))
            self._sizes.append(len(row) + 1)
            self._hashes.append(hash_document(self._rows[-1]))
            self._text_bytes += len(document.text)
            self._unknown_tokens += 0 if self._unknown is None else int((row == self._unknown).sum())

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """A hash of each document, by which equal ones are found."""
        return np.array(self._hashes, "<u8")

    def write(self, path: Path) -> dict[str, Any]:
        """Write the tokens and the ends of documents; returns what is in them."""
        # From the arrays and not from a copy of all: a shard may have hundreds of megabytes.
        tokens = b"".join(row.tobytes() for row in self._rows)
        ends = np.cumsum(self._sizes, dtype=np.int64).astype("<i8").tobytes()
        sums = compute_block_sums(tokens)
        for suffix, content in ((TOKENS_SUFFIX, tokens), (ENDS_SUFFIX, ends), (SUMS_SUFFIX, sums)):
            write_bytes(path.with_name(path.name + suffix), content, mode=FILE_MODE)
        return {
            "name": path.name + TOKENS_SUFFIX,
            "documents": len(self._sizes),
            "tokens": sum(self._sizes),
            "text_bytes": self._text_bytes,
            "unknown_tokens": self._unknown_tokens,
            "sha256": hashlib.sha256(tokens).hexdigest(),
            "ends_sha256": hashlib.sha256(ends).hexdigest(),
            "sums_sha256": hashlib.sha256(sums).hexdigest(),
        }
