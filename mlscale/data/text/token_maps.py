"""Files of tokens that are mapped into memory, and the document that describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale import contracts
from mlscale.atomic_files import compute_sha256, read_json
from mlscale.data.encoders.tokenizer import Tokenizer
from mlscale.data.inspection.shared_rows import SharedDocuments
from mlscale.data.text.token_arrays import RESTORE, SUMS_SUFFIX, BlockChecks, choose_token_type, count_blocks
from mlscale.errors import MLScaleError, describe_wrong_content

DOCUMENT, TOKENIZER = "dataset.json", "tokenizer.json"
TOKENS_SUFFIX, ENDS_SUFFIX = ".bin", ".ends"
"""Of a file of tokens, and of that of the places after the end of each of its documents, int64."""


@dataclass(frozen=True)
class TokenShard:
    """A file of tokens, that of its documents, and that of the checksums of its blocks.

    Attributes:
        path: of the tokens.
        tokens: their number.
        documents: their number.
        sha256: of the file of tokens.
        ends_sha256: of the file of documents.
        sums_sha256: of the file of checksums; None where it was written without them.
    """

    path: Path
    tokens: int
    documents: int
    sha256: str
    ends_sha256: str
    sums_sha256: str | None = None

    @property
    def ends_path(self) -> Path:
        return self.path.with_suffix(ENDS_SUFFIX)

    @property
    def sums_path(self) -> Path:
        return self.path.with_suffix(SUMS_SUFFIX)

    def check_sizes(self, kind: np.dtype[Any]) -> None:
        """Check that the files have all of their bytes; nothing is read.

        Raises:
            MLScaleError: one is missing, or shorter or longer.
        """
        bytes_of_tokens = self.tokens * kind.itemsize
        sizes = {self.path: bytes_of_tokens, self.ends_path: self.documents * 8}
        if self.sums_sha256 is not None:
            sizes[self.sums_path] = count_blocks(bytes_of_tokens) * 4
        for path, size in sizes.items():
            actual = path.stat().st_size if path.is_file() else None
            if actual != size:
                raise MLScaleError(
                    f"the token file {str(path)!r} is {'missing' if actual is None else 'not whole'}",
                    where="data.root",
                    why=f"{DOCUMENT} states {size:,} bytes" + ("" if actual is None else f", and it has {actual:,}"),
                    fix=RESTORE,
                )

    def verify_content(self) -> None:
        """Compare the files with their digests.

        Raises:
            MLScaleError: one has other bytes.
        """
        _compare_digest(self.path, self.sha256)
        self.verify_ends()
        self.verify_sums()

    def verify_ends(self) -> None:
        """Compare the file of documents with its digest.

        Raises:
            MLScaleError: it has other bytes.
        """
        _compare_digest(self.ends_path, self.ends_sha256)

    def verify_sums(self) -> None:
        """Compare the file of checksums with its digest; nothing where there is none.

        Raises:
            MLScaleError: it has other bytes.
        """
        if self.sums_sha256 is not None:
            _compare_digest(self.sums_path, self.sums_sha256)


def _compare_digest(path: Path, wanted: str) -> None:
    if (digest := compute_sha256(path)) != wanted:
        raise MLScaleError(
            f"the token file {str(path)!r} has changed since it was written",
            where="data.root",
            why=f"its SHA-256 is {digest[:16]}…, and {DOCUMENT} states {wanted[:16]}…",
            fix=RESTORE,
        )


class MappedTokens:
    """The tokens of a split, whose files are mapped when they are first read.

    Args:
        shards: in their order.
        kind: numpy's type of a token.
    """

    def __init__(self, shards: Sequence[TokenShard], kind: np.dtype[Any]) -> None:
        self._shards, self._kind = list(shards), kind
        self._bounds = np.cumsum([0, *(shard.tokens for shard in shards)])
        self._counts = np.cumsum([0, *(shard.documents for shard in shards)])
        self._maps: dict[Path, NDArray[Any]] = {}
        self._checks: dict[int, BlockChecks] = {}

    def __len__(self) -> int:
        return int(self._bounds[-1])

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """The place after the end of each document; read as a whole, which blocks of all text do not need."""
        # Ends count from the start of their file, so that files can be written independently.
        parts = [self._map_ends(number) + start for number, start in enumerate(self._bounds[:-1])]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    @property
    def documents(self) -> int:
        """The number of documents."""
        return int(self._counts[-1])

    def take_span(self, start: int, stop: int) -> NDArray[Any]:
        first = int(np.searchsorted(self._bounds, start, side="right")) - 1
        parts = []
        while start < stop:
            low, high = int(self._bounds[first]), int(self._bounds[first + 1])
            parts.append(self._take_from_shard(first, start - low, min(stop, high) - low))
            start, first = high, first + 1
        # A span is in one file as a rule, and then nothing is copied.
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, self._kind)

    def locate_token(self, token: int) -> tuple[int, int]:
        """Return the number of the document of a token, and its place in it."""
        # First the file, then the document in it: the ends of one file alone are mapped.
        shard = int(np.searchsorted(self._bounds, token, side="right")) - 1
        ends, at = self._map_ends(shard), token - int(self._bounds[shard])
        document = int(np.searchsorted(ends, at, side="right"))
        return int(self._counts[shard]) + document, at - (int(ends[document - 1]) if document else 0)

    def take_document(self, number: int) -> NDArray[Any]:
        """Return the tokens of a document, without its end."""
        shard = int(np.searchsorted(self._counts, number, side="right")) - 1
        ends, at = self._map_ends(shard), number - int(self._counts[shard])
        start = int(ends[at - 1]) if at else 0
        return self._take_from_shard(shard, start, int(ends[at]) - 1)

    def _take_from_shard(self, number: int, start: int, stop: int) -> NDArray[Any]:
        """Return tokens of one file.

        Raises:
            CorruptTokensError: a block of them has other bytes than were written.
        """
        shard = self._shards[number]
        tokens = self._map(shard.path, self._kind)
        if shard.sums_sha256 is not None:
            if number not in self._checks:
                # The sums are a 4,096th of the tokens, and are compared as a whole when the first of them is needed.
                shard.verify_sums()
                self._checks[number] = BlockChecks(shard.path, tokens, self._map(shard.sums_path, np.dtype("<u4")))
            self._checks[number].check_tokens(start, stop)
        # A slice of a map is a view: the system reads pages of it when they are copied.
        return tokens[start:stop]

    def _map_ends(self, number: int) -> NDArray[np.int64]:
        shard = self._shards[number]
        if shard.ends_path not in self._maps:
            # Sequences and names are computed from them, and they are read as a whole anyhow.
            shard.verify_ends()
        return self._map(shard.ends_path, np.dtype("<i8"))

    def _map(self, path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
        if path not in self._maps:
            # An empty file can't be mapped.
            self._maps[path] = np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)
        return self._maps[path]

    def __getstate__(self) -> dict[str, Any]:
        # Another process maps the files by itself: the content of maps would be copied into it.
        return {**self.__dict__, "_maps": {}, "_checks": {}}


@dataclass(frozen=True)
class TokenFolder:
    """A folder of tokens that `mlscale prepare` has written.

    Attributes:
        folder: with a folder for each split in it.
        document: its `dataset.json`.
        tokenizer: that has written it.
    """

    folder: Path
    document: Mapping[str, Any]
    tokenizer: Tokenizer

    @classmethod
    def open(cls, folder: Path) -> TokenFolder:
        """Read what describes a folder; its tokens are not read.

        Raises:
            MLScaleError: it is not such a folder, is not complete, or files are missing or were changed.
        """
        path = folder / DOCUMENT
        if not path.is_file():
            raise MLScaleError(
                f"not a folder of tokens: it has no {DOCUMENT}",
                where="data.root",
                why=f"looked for {path.absolute()}; it is written last, when all parts are there",
                fix=f"mlscale prepare data=text_files data.train='texts/*.txt' train_tokenizer=8000 to={folder}",
            )
        try:
            document = read_json(path)
            contracts.expect_format("tokens", document, str(path))
            if not contracts.has_right_checksum(document):
                raise ValueError("its content is not that of its checksum")
            roles = {str(role): str(name) for role, name in document["special_tokens"].items()}
            tokenizer = Tokenizer.load_file(folder / TOKENIZER, roles, where="data.root")
            opened = cls(folder, document, tokenizer)
            opened._check_document()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MLScaleError(
                f"{DOCUMENT} can't be read",
                where=str(path),
                why=describe_wrong_content(error),
                fix=RESTORE,
            ) from error
        return opened

    @property
    def splits(self) -> list[str]:
        return list(self.document["splits"])

    @property
    def kind(self) -> np.dtype[Any]:
        """numpy's type of a token in the files."""
        kind: np.dtype[Any] = np.dtype(str(self.document["dtype"])).newbyteorder("<")
        return kind

    @property
    def shared_documents(self) -> SharedDocuments | None:
        """The validation documents that are training documents, too; None where none are, or none were compared."""
        shared: Mapping[str, Any] | None = self.document.get("shared_documents")
        if not shared or not shared["documents"]:
            return None
        val: Mapping[str, Any] = self.document["splits"]["val"]
        share = int(shared["tokens"]) / int(val["tokens"])
        first = (f"val {shared['first'][0]}", f"train {shared['first'][1]}")
        return SharedDocuments(int(shared["documents"]), int(val["documents"]), share, first)

    def list_shards(self, split: str) -> list[TokenShard]:
        """Return the files of a split."""
        return [
            TokenShard(
                # The name alone: a document that was edited must not lead to other folders.
                self.folder / split / Path(str(shard["name"])).name,
                int(shard["tokens"]),
                int(shard["documents"]),
                str(shard["sha256"]),
                str(shard["ends_sha256"]),
                # Folders of before it was written have none, and are read all the same.
                shard.get("sums_sha256"),
            )
            for shard in self.document["splits"][split]["shards"]
        ]

    def _check_document(self) -> None:
        # Both files are in the folder, and either may have been replaced by hand.
        if self.tokenizer.digest != self.document["tokenizer"]:
            raise MLScaleError(
                f"the {TOKENIZER} of the folder is not the one that wrote the tokens",
                where="data.root",
                why=f"its digest is {self.tokenizer.digest}, and {DOCUMENT} states {self.document['tokenizer']}",
                fix=RESTORE,
            )
        if self.kind.itemsize < choose_token_type(self.tokenizer.size).itemsize:
            raise MLScaleError(
                f"ids of {self.tokenizer.size:,} tokens do not fit into {self.document['dtype']}",
                where="data.root",
                why=f"{DOCUMENT} states that type, which has {1 << 8 * self.kind.itemsize:,} ids",
                fix=RESTORE,
            )
        for split in self.splits:
            for shard in self.list_shards(split):
                shard.check_sizes(self.kind)
