"""`mlscale prepare data=text_files … to=`: documents as files of tokens."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.errors import MLScaleError
from mlscale.report import Result
from mlscale.report.text import format_count, format_percent

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.data.text.text_files import TextFiles
    from mlscale.data.writing.write_shards import Part
    from mlscale.data.writing.write_tokens import WrittenTokens


def write_text_tokens(cfg: DictConfig, data: TextFiles, part: Part, start: float) -> Result:
    """Write the documents of text files into the folder of `to=`.

    Raises:
        MLScaleError: the texts have no tokenizer, or two; or see `write_tokens`.
    """
    from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
    from mlscale.data.text.documents import list_all_not_text
    from mlscale.data.writing.write_tokens import TokenSource, count_source_bytes, write_tokens
    from mlscale.report.sample_bar import SampleProgressBar

    folder, shard_bytes = Path(cfg.to).expanduser(), round(cfg.shard_mb * 10**6)
    # No part is larger than a shard, so that shards have about one size.
    parts = data.list_token_parts(shard_bytes)
    files: dict[str, list[Path]] = {}
    for split, listed in parts.items():
        files.setdefault(data.file_keys[split], []).extend(part.path for part in listed)
    if cfg.train_tokenizer is not None:
        with list_all_not_text(files):
            _train_tokenizer(cfg, data, parts, folder)
    encoder = data.encoder()
    if not isinstance(encoder, TokenDocumentEncoder):
        raise MLScaleError(
            "the texts have no tokenizer",
            where="data.tokenizer",
            why="bytes need no preparing: data=text_files reads them",
            fix="data.tokenizer=tokenizer.json\ntrain_tokenizer=8000, to train one on these texts",
        )
    source = TokenSource(parts, data.text, data.content_fraction, encoder, type(data).__name__, data.file_keys)
    with list_all_not_text(files), SampleProgressBar(count_source_bytes(source), unit="byte") as bar:
        written = write_tokens(
            source, folder, shard_bytes=shard_bytes, licence=cfg.licence, part=part, progress=bar.add_samples
        )
    return _build_result(written, part, time.perf_counter() - start)


def _train_tokenizer(cfg: DictConfig, data: TextFiles, parts: dict[str, Any], folder: Path) -> None:
    """Train the tokenizer on training documents, unless an earlier call has, and let the data have it."""
    from mlscale.data.text.document_parts import read_documents
    from mlscale.data.text.token_maps import TOKENIZER
    from mlscale.data.writing.train_tokenizer import train_tokenizer

    if data.tokenizer_path is not None:
        raise MLScaleError(
            "train_tokenizer has no effect with data.tokenizer",
            where="train_tokenizer",
            why="one of both is the tokenizer",
            fix="data.tokenizer=null\ntrain_tokenizer=null",
        )
    # In the folder itself: it is the tokenizer of these tokens, and the next call finds it there.
    path = folder / TOKENIZER
    if not path.is_file():
        documents = (item for part in parts["train"] for item in read_documents(part, data.text, where="data.train"))
        train_tokenizer(documents, cfg.train_tokenizer, path)
    data.tokenizer_path = str(path)


def _build_result(written: WrittenTokens, part: Part, seconds: float) -> Result:
    from mlscale.data.text.token_maps import DOCUMENT

    train, val = written.splits["train"], written.splits["val"]
    before = f", {written.found_before:,} already there" if written.found_before else ""
    sentence = (
        f"{train['tokens']:,} training and {val['tokens']:,} validation tokens of "
        f"{train['documents'] + val['documents']:,} documents in {written.folder}: "
        f"{format_count(written.written, 'shard')} written{before}"
    )
    # Shards of other parts that are not there yet do not count.
    unknown, tokens = train["unknown_tokens"], max(train["tokens"], 1)
    if unknown:
        sentence += f"; {format_percent(unknown / tokens, 2)} of the training tokens are unknown to the tokenizer"
    if not written.is_complete:
        sentence += f"; {DOCUMENT} follows with the last of {part.of} parts"
    return Result(
        command="prepare",
        ok=True,
        sentence=sentence,
        metrics={
            "train_tokens": train["tokens"],
            "val_tokens": val["tokens"],
            "bytes_per_token_ratio": train["text_bytes"] / tokens,
            "shards_written": written.written,
            "time_s": seconds,
        },
        artifacts={"folder": str(written.folder)},
        details={"train": f"+recipe=gpt data=tokens data.root={shlex.quote(str(written.folder))}"},
    )
