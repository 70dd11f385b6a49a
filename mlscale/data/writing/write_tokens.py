"""Tokenise documents once, into files that are mapped into memory: in parts, resumed after a kill, bitwise equal."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale import contracts
from mlscale.atomic_files import read_json, write_bytes, write_json
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
from mlscale.data.inspection.shared_rows import find_equal_documents, hash_document
from mlscale.data.text.documents import Document, DocumentPart, is_text_held_out, read_documents
from mlscale.data.text.token_arrays import SUMS_SUFFIX, choose_token_type, compute_block_sums
from mlscale.data.text.token_maps import DOCUMENT, ENDS_SUFFIX, TOKENIZER, TOKENS_SUFFIX
from mlscale.data.writing.write_shards import Part, Progress, claim_plan
from mlscale.errors import MLScaleError

_RECORDS = ".records"
_AT_ONCE = 512
_MAX_JOBS = 2
"""Shards that are written at once: the tokenizer itself works on all cores, and reading has to go on meanwhile."""
TRAIN, VAL = "train", "val"


@dataclass(frozen=True)
class TokenSource:
    """Documents to be tokenised.

    Attributes:
        parts: of the files by split, in order; of `train` alone where each document is held out by its content.
        column: of the text in JSON Lines; None for text files.
        val_fraction: part of the documents of `train` that is held out by content; None where parts of `val` are given.
        encoder: of the documents.
        name: of the class that names them.
        keys: the key path that names the files of each split; those of `val` may be held out of `data.train`.
    """

    parts: Mapping[str, Sequence[DocumentPart]]
    column: str | None
    val_fraction: float | None
    encoder: TokenDocumentEncoder
    name: str
    keys: Mapping[str, str]


@dataclass(frozen=True)
class WrittenTokens:
    """The result of `write_tokens`.

    Attributes:
        folder: with a folder for each split.
        written: shards that were written now.
        found_before: shards of this part that an earlier call had written.
        splits: what each split has: documents, tokens, text_bytes, unknown_tokens; of all shards that are there.
        is_complete: all parts are there, and `dataset.json` is written.
    """

    folder: Path
    written: int
    found_before: int
    splits: Mapping[str, Mapping[str, int]]
    is_complete: bool


@dataclass(frozen=True)
class _Job:
    """A shard: consecutive parts of the files of a split."""

    number: int
    split: str
    parts: tuple[DocumentPart, ...]


def write_tokens(
    source: TokenSource,
    folder: Path,
    *,
    shard_bytes: int,
    licence: str | None,
    part: Part,
    progress: Progress,
) -> WrittenTokens:
    """Write the tokens of all documents. Shards that are there already are kept.

    Args:
        source: the documents.
        folder: a new one, or one of an earlier call with the same documents and settings.
        shard_bytes: of the text of one shard, about.
        licence: of the data, for `dataset.json`.
        part: of several processes that write together.
        progress: called with the bytes of text of a shard that is done.

    Raises:
        MLScaleError: the folder holds other data, or can't be written to; a document can't be read; a split has none.
    """
    jobs = _plan_jobs(source, shard_bytes)
    plan = _describe_plan(source, jobs, shard_bytes)
    claim_plan(folder, plan, [TRAIN, VAL, _RECORDS])
    if not (folder / TOKENIZER).is_file():
        write_bytes(folder / TOKENIZER, source.encoder.tokenizer.content.encode(), mode=FILE_MODE)
    # Every `of`-th, so that each part has shards from all over the files.
    own = jobs[part.number :: part.of]
    missing = [job for job in own if not _get_record(folder, job).is_file()]

    def write(job: _Job) -> None:
        _write_job(source, folder, job)
        progress(sum(file.size for file in job.parts))

    # What is there counts at once, as a progress bar would begin anew otherwise.
    progress(
        sum(file.size for job in own for file in job.parts) - sum(file.size for job in missing for file in job.parts)
    )
    pool = ThreadPoolExecutor(min(_MAX_JOBS, len(os.sched_getaffinity(0))))
    try:
        list(pool.map(write, missing))
    finally:
        # After an error, or Ctrl-C, shards that were not begun are not written.
        pool.shutdown(cancel_futures=True)
    records = [read_json(path) for job in jobs if (path := _get_record(folder, job)).is_file()]
    splits = {split: _sum_records(records, split) for split in (TRAIN, VAL)}
    # Other parts, and earlier calls, have written some of them.
    is_complete = len(records) == len(jobs)
    if is_complete:
        _check_splits(source, splits)
        _write_document(source, folder, plan, splits, licence)
    totals = {
        split: {name: value for name, value in counts.items() if name != "shards"} for split, counts in splits.items()
    }
    return WrittenTokens(folder, len(missing), len(own) - len(missing), totals, is_complete)


def _plan_jobs(source: TokenSource, shard_bytes: int) -> list[_Job]:
    """Return the shards: by the sizes of files alone, so that every process has the same."""
    jobs: list[_Job] = []
    # A shard has files of one split alone, unless its documents are held out by content.
    for split, parts in source.parts.items():
        chosen: list[DocumentPart] = []
        for part in parts:
            chosen.append(part)
            if sum(file.size for file in chosen) >= shard_bytes:
                jobs.append(_Job(len(jobs), split, tuple(chosen)))
                chosen = []
        if chosen:
            jobs.append(_Job(len(jobs), split, tuple(chosen)))
    return jobs


def _describe_plan(source: TokenSource, jobs: Sequence[_Job], shard_bytes: int) -> dict[str, Any]:
    # All that decides which bytes a shard of a given name has; contents are covered by the sizes of their files.
    files = hashlib.sha256()
    for job in jobs:
        for part in job.parts:
            files.update(
                f"{job.number} {job.split} {part.name}\0{part.start} {part.stop}\0".encode("utf-8", "surrogateescape")
            )
    return {
        "container": "tokens",
        "tokenizer": source.encoder.tokenizer.digest,
        "special_tokens": dict(source.encoder.tokenizer.roles),
        "source_files": files.hexdigest()[:16],
        "text_column": source.column,
        "val_fraction": source.val_fraction,
        "shard_bytes": shard_bytes,
        "shards": len(jobs),
    }


def _get_record(folder: Path, job: _Job) -> Path:
    return folder / _RECORDS / f"{job.number:05d}.json"


def _get_hashes(folder: Path, name: str) -> Path:
    return folder / _RECORDS / f"{Path(name).stem}.hashes"


def _write_job(source: TokenSource, folder: Path, job: _Job) -> None:
    """Write the files of a shard, and after them its record: where that is, they are whole."""
    # Held out by content, a shard of files has documents of both splits.
    is_divided = source.val_fraction is not None
    shards = {split: CollectedTokens(source.encoder) for split in ((TRAIN, VAL) if is_divided else (job.split,))}
    where = source.keys[job.split]
    read = (document for part in job.parts for document in read_documents(part, source.column, where=where))
    documents = (document for document in read if document.text)
    while group := list(islice(documents, _AT_ONCE)):
        by_split: dict[str, list[Document]] = {split: [] for split in shards}
        for document in group:
            held = is_divided and is_text_held_out(document.text, source.val_fraction or 0.0)
            by_split[VAL if held else job.split].append(document)
        for split, chosen in by_split.items():
            shards[split].add_documents(chosen)
    # The record is last: without it the files of a shard are written again.
    record = {split: shard.write(folder / split / f"{split}-{job.number:05d}") for split, shard in shards.items()}
    for split, shard in shards.items():
        write_bytes(_get_hashes(folder, f"{split}-{job.number:05d}"), shard.hashes.tobytes(), mode=FILE_MODE)
    write_json(_get_record(folder, job), record)


def _sum_records(records: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    # A shard without a document of the split has files of no bytes, which are left out here.
    shards = [record[split] for record in records if split in record and record[split]["documents"]]
    names = ("documents", "tokens", "text_bytes", "unknown_tokens")
    return {**{name: sum(shard[name] for shard in shards) for name in names}, "shards": shards}


def _find_shared_documents(folder: Path, splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what the splits share, for `dataset.json`; None where a shard was written before hashes were."""
    paths = {split: [_get_hashes(folder, shard["name"]) for shard in splits[split]["shards"]] for split in splits}
    if not all(path.is_file() for files in paths.values() for path in files):
        return None
    # Those of validation are in memory, and of training one shard at a time.
    val = np.concatenate([np.fromfile(path, "<u8") for path in paths[VAL]])
    equal = find_equal_documents((np.fromfile(path, "<u8") for path in paths[TRAIN]), val)
    if equal is None:
        return {"documents": 0, "tokens": 0, "first": []}
    ends = [
        np.fromfile((folder / VAL / shard["name"]).with_suffix(ENDS_SUFFIX), "<i8") for shard in splits[VAL]["shards"]
    ]
    sizes = np.concatenate([np.diff(part, prepend=0) for part in ends])
    first = [int(equal.rows[0]), equal.twin]
    return {"documents": len(equal.rows), "tokens": int(sizes[equal.rows].sum()), "first": first}


def _check_splits(source: TokenSource, splits: Mapping[str, Mapping[str, Any]]) -> None:
    for split, counts in splits.items():
        if not counts["documents"]:
            fraction = source.val_fraction
            raise MLScaleError(
                f"no document of {split} is left",
                where=f"data.{split}" if fraction is None else "data.val_fraction",
                why="the files have none"
                if fraction is None
                else f"documents are held out as a whole, {fraction:g} of all",
                fix=f"data.{split}=<other files>",
            )


def _write_document(
    source: TokenSource, folder: Path, plan: Mapping[str, Any], splits: Mapping[str, Any], licence: str | None
) -> None:
    tokenizer, path = source.encoder.tokenizer, folder / DOCUMENT
    # An earlier call may have stated it, and a later one is often typed without.
    if licence is None and path.is_file():
        licence = read_json(path).get("licence")
    document = {
        "format": contracts.get_format_tag("tokens"),
        **plan,
        "dtype": choose_token_type(source.encoder.vocabulary).name,
        "vocab_size": source.encoder.vocabulary,
        "tokenizer": tokenizer.digest,
        "document_end": source.encoder.end,
        "source": source.name,
        "licence": licence,
        "shared_documents": _find_shared_documents(folder, splits),
        "splits": splits,
    }
    write_json(path, contracts.add_checksum(document))


def count_source_bytes(source: TokenSource) -> int:
    """Return the bytes of all files, for a progress bar."""
    return sum(part.size for parts in source.parts.values() for part in parts)


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
