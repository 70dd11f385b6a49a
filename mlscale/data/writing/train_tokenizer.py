"""Train a tokenizer on documents: a byte-level BPE, as GPT-2 has it, which reads every text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mlscale.atomic_files import make_folders, write_bytes
from mlscale.data.encoders.tokenizer import import_tokenizers
from mlscale.data.text.documents import Document
from mlscale.errors import MLScaleError

END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"
_BYTES = 256
_MODE = 0o644
_MOST_BYTES = 1 << 28
"""Of text that it learns from: more changes hardly a token, and takes memory."""


def train_tokenizer(documents: Iterable[Document], size: int, path: Path) -> None:
    """Write a tokenizer of so many tokens. Equal documents give equal bytes.

    Args:
        documents: the first ones of them count, up to 256 MiB.
        size: of its vocabulary, bytes and special tokens included.
        path: of the file.

    Raises:
        MLScaleError: the size has no room for the bytes, or the package is not installed.
    """
    least = _BYTES + 2
    if isinstance(size, bool) or not isinstance(size, int) or size < least:
        raise MLScaleError(
            f"train_tokenizer is {size}",
            where="train_tokenizer",
            why=f"it is the size of a vocabulary, and has {_BYTES} bytes and 2 special tokens at least",
            fix="train_tokenizer=8000",
        )
    tokenizers = import_tokenizers()
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    # No normaliser: what a model reads decodes to the same bytes again.
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        # The padding first: then token 0 is padding, and ids are those of the file in text classification, too.
        special_tokens=[PADDING, END_OF_TEXT],
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_limit_texts(documents), trainer)
    make_folders(path.parent)
    write_bytes(path, tokenizer.to_str().encode(), mode=_MODE)


def _limit_texts(documents: Iterable[Document]) -> Iterable[str]:
    left = _MOST_BYTES
    for document in documents:
        if left <= 0:
            return
        left -= len(document.text)
        yield document.text.decode("utf-8", "replace")
