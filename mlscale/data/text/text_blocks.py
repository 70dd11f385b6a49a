"""Text for language models: blocks of bytes, each with the same block shifted by one byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from mlscale.data.array_data import MemoryData
from mlscale.data.data_facts import DataFacts
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.text_encoder import convert_to_bytes
from mlscale.data.order.policy import Policy, PolicyArguments
from mlscale.data.split_rows import Array, SplitRows, compute_split_version
from mlscale.data.text.documents import Document, compute_documents_digest, hold_out_documents, read_text_files
from mlscale.data.windows.text_window import write_document_window
from mlscale.data.windows.window_folder import TRAIN, WHERE
from mlscale.errors import MLScaleError


class TextBlocks:
    """Documents one after the other, a zero byte after each, cut into blocks.

    Args:
        documents: at least as much text as a block and the byte after it.
        length: bytes of a block.
        stride: bytes from the start of a block to that of the next.

    Attributes:
        text: all of it.
        documents: the texts.
    """

    bad: Mapping[int, str] = {}
    labels = None

    def __init__(self, documents: Sequence[Document], length: int, stride: int) -> None:
        # Other blocks of the same text are other samples.
        self.version = compute_documents_digest(documents) + f" {length}/{stride}"
        self.text = b"".join(document.text + b"\0" for document in documents)
        self._bytes = np.frombuffer(self.text, np.uint8)
        self.documents = [document.text for document in documents]
        self._names = [document.name for document in documents]
        self._starts = np.cumsum([0] + [len(document.text) + 1 for document in documents])[:-1]
        # One byte more than a block, for the target of its last byte.
        self._reach, self._stride = np.arange(length + 1, dtype=np.int64), stride

    def __len__(self) -> int:
        # Only whole blocks, each with the byte after it.
        return max(0, (len(self.text) - len(self._reach)) // self._stride + 1)

    def get_key(self, sample: int) -> str:
        """Return `document@byte` of the first byte."""
        at = sample * self._stride
        document = int(np.searchsorted(self._starts, at, side="right")) - 1
        return f"{self._names[document]}@{at - int(self._starts[document])}"

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return x and y, int64 (n, length) each: y is x shifted by one."""
        block = self._bytes[samples[:, None] * self._stride + self._reach].astype(np.int64)
        return block[:, :-1].copy(), block[:, 1:].copy()


class LanguageData(MemoryData):
    """Language modelling on documents that a subclass has.

    Validation is on whole documents that training has nothing of, in blocks that do not overlap: every byte is
    predicted once, but for those at the end that do not fill a block.

    Args:
        length: bytes of a block: the context that a model is trained with.
        stride: bytes between the starts of two training blocks; None for `length`. Half of it gives twice the blocks.
        policy: batches, order and augmentation.
    """

    takes_windows: ClassVar[bool] = True

    def __init__(self, *, length: int, stride: int | None, policy: Policy) -> None:
        super().__init__(policy)
        stride = length if stride is None else stride
        for name, value, most in (("length", length, 1 << 20), ("stride", stride, length)):
            if not 1 <= value <= most:
                raise MLScaleError(
                    f"data.{name} is {value}",
                    where=f"data.{name}",
                    why=f"it is a number of bytes from 1 to {most:,}",
                    fix=f"data.{name}={min(256, most) if most > 0 else 256}",
                )
        self.length, self.stride = length, stride

    def encoder(self) -> DocumentEncoder:
        """Return the encoder of documents: tokens are bytes; 0 ends a document."""
        return DocumentEncoder(self.length)

    def list_documents(self, split: str) -> list[bytes]:
        """Return the documents of a split; empty where its blocks are those of several origins."""
        rows = self.get_rows(split)
        return rows.documents if isinstance(rows, TextBlocks) else []

    def write_window(self, folder: Path, samples: Sequence[Any], labels: Sequence[Any]) -> None:
        """Write each document as a text file; see `Backend.write_window`."""
        write_document_window(folder, samples)

    def count_window_rows(self, samples: Sequence[Any]) -> int:
        """Return the number of blocks that documents make."""
        total = sum(len(convert_to_bytes(sample)) + 1 for sample in samples)
        return max(0, (total - self.length - 1) // self.stride + 1)

    def _read_window(self, folder: Path, facts: DataFacts) -> SplitRows:
        documents = read_text_files(str(folder), where=WHERE)
        blocks = TextBlocks(documents, self.length, self.stride if folder.name == TRAIN else self.length)
        self._check_blocks(blocks, f"the window {folder}", WHERE, "window.min_samples=1000, for more texts")
        return blocks

    def read_raw_rows(self, rows: SplitRows, numbers: NDArray[np.int64]) -> list[bytes]:
        """Return of each block the longest piece of a document: a block may begin and end within documents."""
        assert isinstance(rows, TextBlocks)
        x, _ = rows.take_samples(numbers)
        return [max(row.astype(np.uint8).tobytes().split(b"\0"), key=len) for row in x]

    def _check_blocks(self, blocks: TextBlocks, what: str, where: str, fix: str) -> None:
        if not len(blocks):
            raise MLScaleError(
                f"{len(blocks.text):,} bytes of {what} make no block of {self.length}",
                where=where,
                why="a block has a byte after it, and validation text is a part of all where data.val names none",
                fix=fix,
            )

    def _read_documents(self) -> dict[str, list[Document]]:
        """Return training and held-out documents, and test ones if there are any."""
        raise NotImplementedError

    def _read_splits(self) -> tuple[Mapping[str, SplitRows], DataFacts]:
        splits: dict[str, SplitRows] = {}
        for split, documents in self._read_documents().items():
            splits[split] = blocks = TextBlocks(
                documents, self.length, self.stride if split == "train" else self.length
            )
            shorter = f"data.length={max(1, (len(blocks.text) - 1) // 4)}, or more text"
            self._check_blocks(blocks, f"{split} text", "data.length", shorter)
        facts = DataFacts(
            sample=(self.length,),
            dtype="int64",
            length=self.length,
            vocab_size=self.encoder().vocabulary,
            train_samples=len(splits["train"]),
            val_samples=len(splits["val"]),
            version=compute_split_version(splits),
        )
        return splits, facts


class TextFiles(LanguageData):
    """Your own text files, any encoding: a model of their bytes.

    Args:
        train: paths, globs (`docs/**/*.md`), or folders, whose `.txt` files are taken.
        val: the same, for validation; None holds out files of `train`, or the end of a single one.
        val_fraction: part of all bytes that is held out where `val` is None.
        length: see `LanguageData`.
        stride: see `LanguageData`.
        policy: see `Policy`; `augment` gets one block, int64 (length,).
    """

    def __init__(
        self,
        train: str | Sequence[str],
        val: str | Sequence[str] | None = None,
        val_fraction: float = 0.1,
        length: int = 256,
        stride: int | None = None,
        **policy: Unpack[PolicyArguments],
    ) -> None:
        policy.setdefault("batch_size", 16)
        super().__init__(length=length, stride=stride, policy=Policy(**policy))
        self._train, self._val, self.val_fraction = train, val, val_fraction

    def _read_documents(self) -> dict[str, list[Document]]:
        documents = read_text_files(self._train, where="data.train")
        if self._val is not None:
            return {"train": documents, "val": read_text_files(self._val, where="data.val")}
        train, val = hold_out_documents(documents, self.val_fraction, where="data.val_fraction")
        return {"train": train, "val": val}
