"""Write data as shards: a bundled set into the cache, any images into a folder; record digests of shards."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.errors import MLScaleError
from mlscale.report import Result
from mlscale.report.text import format_count, format_percent

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.data.images.image_modules import ImageData
    from mlscale.data.order.bad_samples import BadRecord
    from mlscale.data.text.text_files import TextFiles
    from mlscale.data.writing.reencoding import Reencoding
    from mlscale.data.writing.sample_contents import LeftOut
    from mlscale.data.writing.write_shards import Part, WrittenShards
    from mlscale.data.writing.write_tokens import WrittenTokens


TOKENS = "tokens"


def run(cfg: DictConfig) -> Result:
    """Prepare the data of `data=…`; if it was prepared before, compare its content with its digests.

    Raises:
        MLScaleError: the data is missing, not available, or has changed since it was prepared.
    """
    from omegaconf import OmegaConf

    from mlscale.assembly.run_data import RunData
    from mlscale.data.images.labelled_images import adopt_common_size
    from mlscale.data.writing.reencoding import parse_reencoding

    start = time.perf_counter()
    if cfg.leave_out is not None:
        # The samples of the list may be those that can't be read, and the data is looked at before it is written.
        OmegaConf.update(cfg, "data.on_bad_sample", "skip")
    data = RunData().prepare_module(cfg)
    if data is None:
        raise MLScaleError(
            "nothing to prepare", where="data", why="this data reports nothing of itself", fix="data=digits"
        )
    # Stored images keep their size here, so a size need not be typed before training.
    adopt_common_size(data)
    if cfg.to is not None:
        return _write(cfg, data, start)
    if parse_reencoding(cfg.reencode) is not None:
        raise MLScaleError(
            "reencode has no effect without to=",
            where="reencode",
            why="images are re-encoded where they are written as shards",
            fix="to=<a new folder>",
        )
    return _describe_prepared(data, start)


def _describe_prepared(data: Any, start: float) -> Result:
    """Record and verify the data where it is, and return its facts."""
    from mlscale.data.data_facts import describe_facts

    # Only shards can be recorded, and files of tokens have their digests already: other data has no members.
    recorded = data.record_digests() if hasattr(data, "record_digests") else None
    verified = data.verify_content() if hasattr(data, "verify_content") else None
    facts = asdict(data.facts())
    sentence = (
        f"{facts['train_samples']:,} training and {facts['val_samples']:,} validation samples "
        f"of {describe_facts(facts)}"
    )
    details, artifacts = {"data_version": facts["version"]}, dict[str, str]()
    if facts["label_digest"] is not None:
        details["label_digest"] = facts["label_digest"]
    if recorded is not None:
        sentence += f"; {recorded}"
        names = ["index", *(f"index_{number}" for number in range(2, len(recorded.folders) + 1))]
        artifacts = dict(zip(names, map(str, recorded.folders), strict=False))
    if verified is not None:
        sentence += f"; {verified}"
    return Result(
        command="prepare",
        ok=True,
        sentence=sentence,
        metrics={
            "train_samples": facts["train_samples"],
            "val_samples": facts["val_samples"],
            "time_s": time.perf_counter() - start,
        },
        artifacts=artifacts,
        details=details,
    )


def _write(cfg: DictConfig, data: object, start: float) -> Result:
    """Write images as shards, or documents as tokens, into the folder of `to=`."""
    from mlscale.data.images.image_modules import ImageData
    from mlscale.data.order.bad_samples import BadSample
    from mlscale.data.text.text_files import TextFiles
    from mlscale.data.writing.reencoding import parse_reencoding
    from mlscale.data.writing.sample_contents import find_left_out
    from mlscale.data.writing.write_shards import DOCUMENT

    # Before the data is counted: a mistyped part is the quicker error.
    part, reencoding = _parse_part(cfg.part), parse_reencoding(cfg.reencode)
    shard_bytes = round(cfg.shard_mb * 10**6)
    if shard_bytes < 1:
        raise MLScaleError(f"shard_mb is {cfg.shard_mb}", where="shard_mb", why="it is above 0", fix="shard_mb=256")
    container = _choose_container(cfg.format, data)
    if isinstance(data, TextFiles):
        if reencoding is not None:
            raise MLScaleError("text files have no images", where="reencode", fix="leave reencode out")
        return write_text_tokens(cfg, data, part, start)
    if not isinstance(data, ImageData):
        raise MLScaleError(
            "only images and text files are written",
            where="to",
            why="tables and other texts are read as the files that they are",
            fix=f"leave to={cfg.to} out\ndata=imagefolder data.root=<a folder of images by class>",
        )
    try:
        left_out = find_left_out(data, _read_left_out(cfg.leave_out), drop_copies=cfg.drop_copies)
        written = _write_with_bar(cfg, data, container, left_out, part, reencoding)
    except BadSample as error:
        # Nothing is replaced in shards: what can't be read is named in a list, and left out.
        error.fix = "mlscale data verify … bad=bad.jsonl, with the same data= words; then leave_out=bad.jsonl"
        raise
    before = f", {written.found_before:,} already there" if written.found_before else ""
    sentence = (
        f"{written.samples:,} samples in {written.folder}: {format_count(written.written, 'shard')} written{before}"
    )
    if left_out.copies:
        sentence += f"; left out: {left_out.copies:,} of the same bytes as another"
    if not written.is_complete:
        sentence += f"; {DOCUMENT} follows with the last of {part.of} parts"
    return Result(
        command="prepare",
        ok=True,
        sentence=sentence,
        metrics={
            "samples": written.samples,
            "shards_written": written.written,
            "time_s": time.perf_counter() - start,
        },
        artifacts={"folder": str(written.folder)},
        details={"train": _format_training(cfg, data, written.folder, container)},
    )


def _write_with_bar(
    cfg: DictConfig, data: ImageData, container: str, left_out: LeftOut, part: Part, reencoding: Reencoding | None
) -> WrittenShards:
    from mlscale.atomic_files import report_path_setting
    from mlscale.data.writing.write_shards import count_samples, write_shards
    from mlscale.report.sample_bar import SampleProgressBar

    with SampleProgressBar(count_samples(data)) as bar, report_path_setting("to"):
        return write_shards(
            data,
            Path(cfg.to).expanduser(),
            container=container,
            shard_bytes=round(cfg.shard_mb * 10**6),
            seed=cfg.seed,
            licence=cfg.licence,
            left_out=left_out,
            reencoding=reencoding,
            part=part,
            progress=bar.add_samples,
        )


def _read_left_out(path: str | None) -> list[BadRecord]:
    from mlscale.data.order.bad_samples import read_bad_list

    return [] if path is None else read_bad_list(Path(path).expanduser(), where="leave_out")


def _choose_container(chosen: str | None, data: object) -> str:
    """Return the format of what is written.

    Raises:
        MLScaleError: it is not one of this data.
    """
    from mlscale.data.text.text_files import TextFiles
    from mlscale.data.writing.sample_contents import FORMATS

    takes = (TOKENS,) if isinstance(data, TextFiles) else tuple(FORMATS)
    if chosen is not None and chosen not in takes:
        raise MLScaleError(
            f"{type(data).__name__} is not written as {chosen}",
            where="format",
            why=f"it is written as {' or '.join(takes)}",
            fix=f"format={takes[0]}",
        )
    return chosen or takes[0]


def _format_training(cfg: DictConfig, data: ImageData, folder: Path, container: str) -> str:
    """Return the words that train on what was written."""
    from mlscale.data.writing.sample_contents import FORMATS

    # Only what the shards themselves do not show has to be typed.
    words = [
        f"data={FORMATS[container]}",
        *(f"data.{split}={shlex.quote(str(folder / split))}" for split in data.list_splits()),
    ]
    if data.labels != "one":
        words.append(f"data.labels={data.labels}")
    if container == "tfrecord" and data.labels == "mask":
        words.append("'data.schema={label: image/segmentation/class/encoded}'")
    return " ".join([*words, f"data.image_size={data.image_size or 'null'}"])


def _parse_part(text: str | None) -> Part:
    """Return the part that `3/8` names.

    Raises:
        MLScaleError: it is not a number from 1 to the number of parts.
    """
    from mlscale.data.writing.write_shards import Part

    if text is None:
        return Part()
    # From 1, as job arrays are usually numbered.
    number, _, of = str(text).partition("/")
    if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Part(int(number) - 1, int(of))
    raise MLScaleError(
        f"part is {text!r}",
        where=f"part={text}",
        why="it is the number of this job and how many there are, from 1; in sbatch --array=1-8 "
        "part=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT",
        fix="part=1/8",
    )


def write_text_tokens(cfg: DictConfig, data: TextFiles, part: Part, start: float) -> Result:
    """Write the documents of text files into the folder of `to=`.

    Raises:
        MLScaleError: the texts have no tokenizer, or two; or see `write_tokens`.
    """
    from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
    from mlscale.data.writing.write_tokens import TokenSource, count_source_bytes, write_tokens
    from mlscale.report.sample_bar import SampleProgressBar

    folder, shard_bytes = Path(cfg.to).expanduser(), round(cfg.shard_mb * 10**6)
    # No part is larger than a shard, so that shards have about one size.
    parts = data.list_token_parts(shard_bytes)
    if cfg.train_tokenizer is not None:
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
    with SampleProgressBar(count_source_bytes(source), unit="byte") as bar:
        written = write_tokens(
            source, folder, shard_bytes=shard_bytes, licence=cfg.licence, part=part, progress=bar.add_samples
        )
    return _build_result(written, part, time.perf_counter() - start)


def _train_tokenizer(cfg: DictConfig, data: TextFiles, parts: dict[str, Any], folder: Path) -> None:
    """Train the tokenizer on training documents, unless an earlier call has, and let the data have it."""
    from mlscale.data.text.documents import read_documents
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
