"""Flipped bits in files of tokens are found when their block is read, and cost nothing where nothing is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mlscale.cli import main
from mlscale.data import TokenFiles
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.text.token_arrays import BLOCK_BYTES, BlockChecks, CorruptTokensError, compute_block_sums
from mlscale.errors import MLScaleError
from tests.unit.data.writing.test_write_tokens import read_texts, write

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "looks", "back", "once", "more"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose training tokens have several blocks."""
    random = np.random.default_rng(15)
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(40):
        (texts / f"{number}.txt").write_text(" ".join(random.choice(WORDS, 900)))
    write(read_texts(tmp_path, train=str(texts)), tmp_path / "tokens", size=1 << 20)
    return tmp_path / "tokens"


def flip_bit(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def read(folder: Path, packing: str = "concat") -> TokenFiles:
    return TokenFiles(str(folder), length=16, batch_size=4, packing=packing)


@pytest.mark.parametrize("packing", ["concat", "documents", "none"])
def test_a_flipped_bit_ends_the_run_at_its_sequence(folder: Path, packing: str) -> None:
    shard = folder / "train/train-00000.bin"
    assert shard.stat().st_size > 3 * BLOCK_BYTES
    flip_bit(shard, BLOCK_BYTES + 100)
    data = read(folder, packing)
    # The start reads no tokens.
    data.setup("fit")
    with pytest.raises(BadSample, match="has other tokens than were written") as caught:
        list(data.train_dataloader())
    assert f"bytes {BLOCK_BYTES:,} to {2 * BLOCK_BYTES:,} of {str(shard)!r}" in caught.value.why
    assert "on_bad_sample" not in caught.value.fix  # these files have no such setting
    flip_bit(shard, BLOCK_BYTES + 100)
    assert len(list(read(folder, packing).train_dataloader())) > 100


def test_verify_names_each_sequence_of_a_corrupt_block(folder: Path, tmp_path: Path) -> None:
    flip_bit(folder / "val/val-00001.bin", 0)
    bad = tmp_path / "bad.jsonl"
    assert main(["data", "verify", "data=tokens", f"data.root={folder}", "data.length=16", f"bad={bad}"]) == 4
    rows = [json.loads(line) for line in bad.read_text().splitlines()]
    data = read(folder)
    touched = min(BLOCK_BYTES // 2, len(data.get_rows("val").tokens)) // 16  # type: ignore[attr-defined]
    assert abs(len(rows) - touched) <= 1
    assert {row["split"] for row in rows} == {"val"}
    assert rows[0]["sample"] == "0@0"
    assert "CRC-32" in rows[0]["why"]


def test_documents_of_a_profile_are_compared_too(folder: Path) -> None:
    flip_bit(folder / "val/val-00001.bin", 40)
    with pytest.raises(MLScaleError, match="documents of val have other tokens"):
        read(folder).list_documents("val")


@pytest.mark.parametrize("suffix", [".sums", ".ends"])
def test_what_is_compared_with_is_compared_itself(folder: Path, suffix: str) -> None:
    flip_bit(folder / f"train/train-00000{suffix}", 3)
    data = read(folder)
    with pytest.raises(MLScaleError, match="has changed since it was written") as caught:
        list(data.train_dataloader())
    assert suffix in caught.value.what


def test_folders_without_sums_are_read(folder: Path) -> None:
    expected = [batch["x"].tolist() for batch in read(folder).train_dataloader()]
    path = folder / "dataset.json"
    document = json.loads(path.read_text())
    version = read(folder).facts().version
    for split in document["splits"].values():
        for shard in split["shards"]:
            del shard["sums_sha256"]
    del document["sha256"]
    path.write_text(json.dumps(document))
    for sums in folder.rglob("*.sums"):
        sums.unlink()
    data = read(folder)
    assert [batch["x"].tolist() for batch in data.train_dataloader()] == expected
    assert data.facts().version == version
    assert data.verify_content() == "4 files have the bytes that were written"


def test_files_without_their_sums_are_not_whole(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.sums"))
    with pytest.raises(MLScaleError, match="sums' is missing"):
        read(copy).facts()


def test_each_block_is_compared_once() -> None:
    tokens = np.arange(3 * BLOCK_BYTES // 2 + 5, dtype="<u2")
    checks = BlockChecks(Path("x.bin"), tokens, np.frombuffer(compute_block_sums(tokens.tobytes()), "<u4"))
    checks.check_tokens(0, 10)
    tokens[3] += 1
    # The first block has been compared, whatever happens to it in memory; the last one is a short one.
    checks.check_tokens(0, 10)
    checks.check_tokens(len(tokens) - 1, len(tokens))
    tokens[BLOCK_BYTES // 2 + 7] += 1
    for _ in range(2):
        with pytest.raises(CorruptTokensError, match=f"bytes {BLOCK_BYTES:,} to"):
            checks.check_tokens(BLOCK_BYTES // 2 - 1, BLOCK_BYTES // 2 + 1)


def test_a_wrong_byte_in_the_document_switches_no_check_off(folder: Path) -> None:
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace("sums_sha256", "sumsOsha256", 1))
    with pytest.raises(MLScaleError, match=r"dataset\.json can't be read"):
        read(folder).facts()
