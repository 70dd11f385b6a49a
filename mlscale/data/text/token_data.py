"""Language modelling on files of tokens, which are not read before they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Unpack

import numpy as np

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.tokenizer import Tokenizer
from mlscale.data.inspection.shared_rows import format_shared_documents
from mlscale.data.text.language_data import BlockArguments, Blocks, LanguageData, build_document_encoder
from mlscale.data.text.token_arrays import RESTORE, CorruptTokensError
from mlscale.data.text.token_blocks import TokenBlocks
from mlscale.data.text.token_maps import MappedTokens, TokenFolder
from mlscale.errors import MLScaleError

_MOST_DOCUMENTS = 512  # that are decoded for a reference profile


class TokenFiles(LanguageData):
    """Tokens that `mlscale prepare … to=` has written, mapped into memory: the start does not depend on their number.

    Args:
        root: the folder.
        arguments: see `LanguageData` and `Policy`; `tokenizer` is compared with that of the folder, and the packings
            `documents` and `none` read where documents end at the start.
    """

    def __init__(
        self,
        root: str,
        **arguments: Unpack[BlockArguments],
    ) -> None:
        super().__init__(**arguments)
        self.root = Path(root).expanduser()

    @cached_property
    def folder(self) -> TokenFolder:
        """The folder, opened.

        Raises:
            MLScaleError: it is not one, is not whole, or has the tokens of another tokenizer.
        """
        folder = TokenFolder.open(self.root)
        if self.tokenizer_path is not None:
            given = Tokenizer.load_file(self.tokenizer_path, None, where="data.tokenizer")
            if given.digest != folder.tokenizer.digest:
                raise MLScaleError(
                    "the tokens were written by another tokenizer",
                    where="data.tokenizer",
                    why=f"the digest of the file is {given.digest}, and that of the folder's {folder.tokenizer.digest}",
                    fix="data.tokenizer=null",
                )
        return folder

    @cached_property
    def _encoder(self) -> DocumentEncoder:
        return build_document_encoder(self.length, self.folder.tokenizer)

    def list_documents(self, split: str) -> list[bytes]:
        """Return documents of a split, evenly spread: all of them may not fit into memory."""
        if self.policy.windows:
            # What validates then is text of production, which is in memory.
            return super().list_documents(split)
        tokens = self.map_tokens(split)
        rows = np.unique(np.linspace(0, tokens.documents - 1, min(tokens.documents, _MOST_DOCUMENTS)).astype(np.int64))
        try:
            return self.encoder().decode_tokens([tokens.take_document(row) for row in rows.tolist()])
        except CorruptTokensError as error:
            raise MLScaleError(
                f"documents of {split} have other tokens than were written",
                where="data.root",
                why=str(error),
                fix=RESTORE,
            ) from error

    def map_tokens(self, split: str) -> MappedTokens:
        """Return the tokens of a split."""
        return MappedTokens(self.folder.list_shards(split), self.folder.kind)

    def verify_content(self) -> str:
        """Compare all files with their digests, and return how many there are.

        Raises:
            MLScaleError: one has other bytes.
        """
        shards = [shard for split in self.folder.splits for shard in self.folder.list_shards(split)]
        for shard in shards:
            shard.verify_content()
        files = sum(2 if shard.sums_sha256 is None else 3 for shard in shards)
        return f"{files:,} files have the bytes that were written"

    def describe_leaks(self) -> list[str]:
        """Return what `prepare` has recorded of equal documents."""
        # All documents were compared once, when they were written: to read them at each start would take too long.
        shared = self.folder.shared_documents
        return [] if shared is None else [format_shared_documents(shared)]

    def _read_blocks(self) -> dict[str, Blocks]:
        return {split: self._build_split(split) for split in self.folder.splits}

    def _build_split(self, split: str) -> TokenBlocks:
        tokens, shards = self.map_tokens(split), self.folder.list_shards(split)
        # The digests were computed when the files were written: nothing has to be read for the version.
        content = hashlib.sha256("|".join(shard.sha256 + shard.ends_sha256 for shard in shards).encode())
        return TokenBlocks(
            tokens,
            f"{content.hexdigest()[:16]} {self.folder.tokenizer.digest}",
            length=self.length,
            stride=self.stride if split == "train" else self.length,
            packing=self.packing,
            end=self.encoder().end,
        )

    def _measure_bytes_per_token(self, blocks: Blocks) -> float:
        val: Mapping[str, int] = self.folder.document["splits"]["val"]
        # The end of a document counts as a byte, as it does in a model of bytes.
        return (int(val["text_bytes"]) + int(val["documents"])) / max(int(val["tokens"]), 1)
