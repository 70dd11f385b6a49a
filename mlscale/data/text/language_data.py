"""Language modelling: documents as sequences of bytes or of a tokenizer's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.data.array_data import MemoryData, MemoryStream
from mlscale.data.data_facts import DataFacts
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.text_encoder import convert_to_bytes
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
from mlscale.data.encoders.tokenizer import Tokenizer, check_has_tokenizer
from mlscale.data.inspection.shared_rows import (
    SharedDocuments,
    find_equal_documents,
    format_shared_documents,
    hash_document,
)
from mlscale.data.order.bad_samples import Stream
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.data.order.policy import Policy, PolicyArguments
from mlscale.data.split_rows import SplitRows, compute_split_version
from mlscale.data.text.documents import (
    Document,
    compute_documents_digest,
    read_all_documents,
)
from mlscale.data.text.packing import CONCAT, check_packing
from mlscale.data.text.token_arrays import FlatTokens, encode_in_parts, join_rows
from mlscale.data.text.token_blocks import TextBlocks, TokenBlocks
from mlscale.data.windows.text_window import write_document_window
from mlscale.data.windows.window_folder import TRAIN, WHERE
from mlscale.errors import MLScaleError

Blocks = TextBlocks | TokenBlocks


class BlockArguments(PolicyArguments, total=False):
    """The arguments of `LanguageData` that every subclass takes, too."""

    length: int
    stride: int | None
    tokenizer: str | None
    packing: str


class TextArguments(BlockArguments, total=False):
    """The same for text that is not tokens yet."""

    special_tokens: Mapping[str, str] | None


class LanguageData(MemoryData):
    """Language modelling on documents that a subclass has.

    Validation is on whole documents that training has nothing of, in blocks that do not overlap: every token is
    predicted once, but for those at the end that do not fill a block.

    Args:
        length: tokens of a block: the context that a model is trained with.
        stride: tokens between the starts of two training blocks; None for `length`. Half of it gives twice the blocks.
        tokenizer: the file of a tokenizer; None: tokens are bytes.
        special_tokens: the names of its special tokens by role; None for the usual names.
        packing: how documents fill blocks; see `mlscale.data.text.packing`.
        policy: see `Policy`; `augment` gets one block, int64 (length,).
    """

    takes_windows: ClassVar[bool] = True

    def __init__(
        self,
        *,
        length: int = 256,
        stride: int | None = None,
        tokenizer: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
        packing: str = CONCAT,
        **policy: Unpack[PolicyArguments],
    ) -> None:
        # Blocks are longer than most samples, and fewer of them fit into memory.
        policy.setdefault("batch_size", 16)
        super().__init__(Policy(**policy))
        check_packing(packing)
        # Before it is filled in: only a stride that was typed can be one without effect.
        self._check_stride(stride, packing)
        stride = length if stride is None else stride
        unit = "bytes" if tokenizer is None else "tokens"
        for name, value, most in (("length", length, 1 << 20), ("stride", stride, length)):
            if not 1 <= value <= most:
                raise MLScaleError(
                    f"data.{name} is {value}",
                    where=f"data.{name}",
                    why=f"it is a number of {unit} from 1 to {most:,}",
                    fix=f"data.{name}={min(256, most) if most > 0 else 256}",
                )
        check_has_tokenizer(tokenizer, special_tokens)
        self.length, self.stride, self.packing = length, stride, packing
        self.tokenizer_path, self.special_tokens = tokenizer, special_tokens

    def encoder(self) -> DocumentEncoder:
        """Return the encoder of documents: tokens are bytes, and 0 ends a document; or those of the tokenizer."""
        return self._encoder

    @cached_property
    def _encoder(self) -> DocumentEncoder:
        if self.tokenizer_path is None:
            return DocumentEncoder(self.length)
        tokenizer = Tokenizer.load_file(self.tokenizer_path, self.special_tokens, where="data.tokenizer")
        return build_document_encoder(self.length, tokenizer)

    def list_documents(self, split: str) -> list[bytes]:
        """Return the documents of a split; empty where its blocks are those of several origins."""
        rows = self.get_rows(split)
        return list(rows.documents) if isinstance(rows, Blocks) else []

    def describe_leaks(self) -> list[str]:
        """Return a line for documents of validation that training has, too."""
        train, val = self.get_rows("train"), self.get_rows("val")
        # Rows other than these sequences, those of windows, have no text as a whole.
        if not isinstance(train, Blocks) or not isinstance(val, Blocks):
            return super().describe_leaks()
        return describe_shared_documents(train, val)

    def write_window(self, folder: Path, samples: Sequence[Any], labels: Sequence[Any]) -> None:
        """Write each document as a text file; see `Backend.write_window`."""
        write_document_window(folder, samples)

    def count_window_rows(self, samples: Sequence[Any]) -> int:
        """Return the number of blocks that documents make."""
        documents = [Document(str(number), convert_to_bytes(sample)) for number, sample in enumerate(samples)]
        return len(self._build_blocks([document for document in documents if document.text], self.stride))

    def _read_window(self, folder: Path, facts: DataFacts) -> SplitRows:
        documents = read_all_documents(str(folder), None, where=WHERE)
        blocks = self._build_blocks(documents, self.stride if folder.name == TRAIN else self.length)
        self._check_blocks(blocks, f"the window {folder}", WHERE, "window.min_samples=1000, for more texts")
        return blocks

    def read_raw_rows(self, rows: SplitRows, numbers: NDArray[np.int64]) -> list[bytes]:
        """Return of each block the longest piece of a document: a block may begin and end within documents."""
        x, _ = rows.take_samples(numbers)
        encoder = self.encoder()
        return encoder.decode_tokens(encoder.find_longest_pieces(x))

    def _build_blocks(self, documents: Sequence[Document], stride: int) -> Blocks:
        encoder = self.encoder()
        if not isinstance(encoder, TokenDocumentEncoder) and self.packing == CONCAT:
            return TextBlocks(documents, self.length, stride)
        names, texts = [document.name for document in documents], [document.text for document in documents]
        content = compute_documents_digest(documents)
        if isinstance(encoder, TokenDocumentEncoder):
            rows = encode_in_parts(texts, encoder.tokenize_documents)
            content += f" {encoder.tokenizer.digest}"
        else:
            rows = map(encoder.tokenize_document, texts)
        # As nanoGPT and GPT-2 have it: one token ends a document, and what is before the next one is the same token.
        ended = (np.append(row, encoder.end) for row in rows)
        return TokenBlocks(
            join_rows(ended, encoder.vocabulary),
            content,
            length=self.length,
            stride=stride,
            packing=self.packing,
            end=encoder.end,
            names=names,
            documents=texts,
        )

    def _check_blocks(self, blocks: Blocks, what: str, where: str, fix: str) -> None:
        if not len(blocks):
            unit = self.encoder().unit
            raise MLScaleError(
                f"{blocks.count_tokens():,} {unit}s of {what} make no block of {self.length}",
                where=where,
                why=f"a block has a {unit} after it, and validation text is a part of all where data.val names none",
                fix=fix,
            )

    @staticmethod
    def _check_stride(stride: int | None, packing: str) -> None:
        if stride is not None and packing != CONCAT:
            raise MLScaleError(
                f"data.stride has no effect with data.packing={packing}",
                where="data.stride",
                why="blocks overlap where they are cut out of all documents",
                fix="data.stride=null\ndata.packing=concat",
            )

    def _read_documents(self) -> dict[str, list[Document]]:
        """Return training and held-out documents, and test ones if there are any."""
        raise NotImplementedError

    def _read_blocks(self) -> dict[str, Blocks]:
        """Return the blocks of each split."""
        return {
            split: self._build_blocks(documents, self.stride if split == "train" else self.length)
            for split, documents in self._read_documents().items()
        }

    def _read_splits(self) -> tuple[Mapping[str, SplitRows], DataFacts]:
        if self.policy.windows and self.packing != CONCAT:
            raise MLScaleError(
                f"windows of production can't be mixed with data.packing={self.packing}",
                where="data.packing",
                why="the sequences of both have one length, and no padding",
                fix="data.packing=concat",
            )
        splits, encoder = self._read_blocks(), self.encoder()
        for split, blocks in splits.items():
            shorter = f"data.length={max(1, (blocks.count_tokens() - 1) // 4)}, or more text"
            self._check_blocks(blocks, f"{split} text", "data.length", shorter)
        train = splits["train"]
        facts = DataFacts(
            sample=(self.length,),
            dtype="int64",
            length=self.length,
            vocab_size=encoder.vocabulary,
            train_samples=len(splits["train"]),
            val_samples=len(splits["val"]),
            version=compute_split_version(splits),
            tokenizer=encoder.tokenizer.digest if isinstance(encoder, TokenDocumentEncoder) else None,
            bytes_per_token=self._measure_bytes_per_token(splits["val"]),
            document_end=None if self.packing == CONCAT else encoder.end,
            padding_share=train.packing.padding_share if isinstance(train, TokenBlocks) else 0.0,
        )
        return splits, facts

    def _measure_bytes_per_token(self, blocks: Blocks) -> float:
        if not isinstance(self.encoder(), TokenDocumentEncoder):
            return 1.0
        # The end of a document counts as a byte, as it does in a model of bytes.
        return sum(len(document) + 1 for document in blocks.documents) / blocks.count_tokens()

    def _open_stream(self, split: str) -> tuple[Stream, int, str]:
        rows = self.get_rows(split)
        if not isinstance(rows, TokenBlocks) or rows.weights is None:
            return super()._open_stream(split)
        augment = self.augment if split == "train" else None
        return _PaddedStream(rows, augment=augment, seed=self.seed), len(rows), rows.version


class _PaddedStream(MemoryStream):
    """Gives sequences the weight of their tokens: some places of them are padding."""

    def _build_batch(self, plan: BatchPlan) -> Batch:
        batch = super()._build_batch(plan)
        assert isinstance(self._rows, TokenBlocks)
        assert self._rows.weights is not None
        weights = torch.from_numpy(self._rows.weights[plan.samples])
        batch["weight"] = batch["weight"] * weights if "weight" in batch else weights
        return batch


def build_document_encoder(length: int, tokenizer: Tokenizer) -> TokenDocumentEncoder:
    """Return the encoder of documents.

    Raises:
        MLScaleError: the tokenizer has no token that ends a document.
    """
    if tokenizer.get_id("eos") is None:
        raise MLScaleError(
            "the tokenizer has no token that ends a document",
            where="data.special_tokens",
            why="none of its tokens has one of the usual names, such as <|endoftext|> and </s>",
            fix="'data.special_tokens={eos: \"<its token>\"}'",
        )
    return TokenDocumentEncoder(length, tokenizer)


def describe_shared_documents(train: TextBlocks | TokenBlocks, val: TextBlocks | TokenBlocks) -> list[str]:
    """Return a line if validation documents in memory are training documents, too; none otherwise."""
    sizes = np.diff(val.tokens.ends, prepend=0)
    equal = find_equal_documents([_hash_documents(train.tokens)], _hash_documents(val.tokens))
    if equal is None:
        return []
    names = (val.get_document_name(int(equal.rows[0])), train.get_document_name(equal.twin))
    share = float(sizes[equal.rows].sum() / sizes.sum())
    return [format_shared_documents(SharedDocuments(len(equal.rows), len(sizes), share, names))]


def _hash_documents(tokens: FlatTokens) -> NDArray[np.uint64]:
    spans = pairwise([0, *tokens.ends.tolist()])
    return np.fromiter((hash_document(tokens.take_span(*span)) for span in spans), np.uint64)
