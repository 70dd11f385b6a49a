"""Documents and passages that training and validation text share are counted and named, wherever sequences are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.data import TextFiles, TokenFiles
from mlscale.data.text import text_leaks
from mlscale.data.text.text_leaks import find_shared_passages
from mlscale.data.text.token_arrays import ArrayTokens
from mlscale.data.text.token_checks import BLOCK_BYTES
from mlscale.data.writing.write_shards import Part
from tests.contract.test_documents import validate
from tests.tokenizer_files import save_bpe
from tests.unit.data.text.test_token_checks import flip_bit
from tests.unit.data.writing.test_write_tokens import write


def draw_text(draw: np.random.Generator, size: int) -> str:
    """Text in which nothing is repeated by chance."""
    return "".join(map(chr, draw.integers(97, 123, size)))


def write_splits(tmp_path: Path, copies: int) -> dict[str, Any]:
    """Write eight training documents of different lengths and five of validation, of which some are training ones."""
    draw = np.random.default_rng(copies)
    train = [draw_text(draw, 700 + 31 * number) for number in range(8)]
    val = [*(draw_text(draw, 900 + 17 * number) for number in range(5 - copies)), *train[:copies]]
    for split, texts in (("train", train), ("val", val)):
        (tmp_path / split).mkdir(exist_ok=True)
        for number, text in enumerate(texts):
            (tmp_path / split / f"{number}.txt").write_text(text)
    return {"train": str(tmp_path / "train"), "val": str(tmp_path / "val")}


def read(tmp_path: Path, copies: int, **settings: Any) -> TextFiles:
    return TextFiles(**write_splits(tmp_path, copies), **{"length": 100, "batch_size": 4, **settings})


@pytest.mark.parametrize("packing", ["concat", "documents"])
@pytest.mark.parametrize("is_tokenised", [False, True])
def test_equal_documents_in_memory(tmp_path: Path, packing: str, is_tokenised: bool) -> None:
    """Blocks of both splits are cut at other places of the same documents, so that no block equals another."""
    tokenizer = save_bpe(tmp_path / "t.json") if is_tokenised else None
    assert read(tmp_path, 0, packing=packing, tokenizer=tokenizer).describe_leaks() == []
    documents, passages = read(tmp_path, 2, packing=packing, tokenizer=tokenizer).describe_leaks()
    assert documents.startswith("leak      2 of 5 validation documents, ")
    assert "are training documents, too: 3.txt equals 0.txt;" in documents
    # A passage is not compared where it begins in one document and ends in another.
    assert int(passages.split()[1]) >= 2 * (700 // 256) - 2
    assert passages.endswith("the metric counts what was learnt by heart")


def test_a_passage_anywhere_in_another_document(tmp_path: Path) -> None:
    write_splits(tmp_path, 0)
    shared = (tmp_path / "train/3.txt").read_text()[101:701]
    (tmp_path / "val/9.txt").write_text(f"new beginning {shared}, and a new end")
    (line,) = TextFiles(**data_paths(tmp_path), length=100, batch_size=4).describe_leaks()
    # 600 bytes have one or two whole passages of 256.
    assert line.split()[1] in ("1", "2")
    val, train = line.partition("too: ")[2].partition(";")[0].split(" equals ")
    places = [name.split("@") for name in (val, train)]
    texts = [(tmp_path / split / file).read_text() for split, (file, _) in zip(("val", "train"), places, strict=True)]
    passages = [text[int(at) :][:256] for text, (_, at) in zip(texts, places, strict=True)]
    assert passages[0] == passages[1]


def data_paths(tmp_path: Path) -> dict[str, Any]:
    return {"train": str(tmp_path / "train"), "val": str(tmp_path / "val")}


def test_files_of_tokens_have_what_was_found_when_they_were_written(tmp_path: Path) -> None:
    """The same counts, from several shards, by several calls; and nothing has to be read for them."""
    data = read(tmp_path, 2, tokenizer=save_bpe(tmp_path / "t.json"))
    for number in (1, 0):
        write(data, tmp_path / "parts", part=Part(number, 2))
    write(data, tmp_path / "tokens")
    written = [json.loads((tmp_path / name / "dataset.json").read_text()) for name in ("tokens", "parts")]
    validate("tokens", written[0])
    assert written[0] == written[1]
    assert written[0]["shared_documents"]["documents"] == 2
    assert written[0]["shared_documents"]["first"] == [3, 0]
    lines = TokenFiles(str(tmp_path / "tokens"), length=100, batch_size=4).describe_leaks()
    wanted = data.describe_leaks()
    assert [line.partition(":")[0] for line in lines] == [line.partition(":")[0] for line in wanted]
    assert "val 3 equals train 0" in lines[0]


def test_folders_of_earlier_versions(tmp_path: Path) -> None:
    """They have no record of equal documents: passages are compared all the same."""
    write(read(tmp_path, 2, tokenizer=save_bpe(tmp_path / "t.json")), tmp_path / "tokens")
    path = tmp_path / "tokens/dataset.json"
    document = json.loads(path.read_text())
    del document["shared_documents"], document["sha256"]
    path.write_text(json.dumps(document))
    (line,) = TokenFiles(str(tmp_path / "tokens"), length=100, batch_size=4).describe_leaks()
    assert "passages of 64 tokens" in line
    for hashes in (tmp_path / "tokens/.records").glob("*.hashes"):
        hashes.unlink()
    write(TextFiles(**data_paths(tmp_path), tokenizer=str(tmp_path / "t.json")), tmp_path / "tokens")
    assert json.loads(path.read_text())["shared_documents"] is None


def test_a_corrupt_block_is_left_to_the_sequence_that_needs_it(tmp_path: Path) -> None:
    data = read(tmp_path, 2, tokenizer=save_bpe(tmp_path / "t.json"))
    write(data, tmp_path / "tokens")
    flip_bit(tmp_path / "tokens/train/train-00000.bin", min(BLOCK_BYTES, 100))
    lines = TokenFiles(str(tmp_path / "tokens"), length=100, batch_size=4).describe_leaks()
    assert len(lines) == 1


def build_tokens(values: Any) -> ArrayTokens:
    return ArrayTokens(np.asarray(values, np.uint16), np.array([len(values)], np.int64))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_passages_are_those_of_a_search_at_every_place(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with Python's own search, over the borders of chunks."""
    monkeypatch.setattr(text_leaks, "_CHUNK", 97)
    draw = np.random.default_rng(seed)
    train, val = draw.integers(0, 60000, 1000), draw.integers(0, 60000, 400)
    for _ in range(4):
        source, target, size = draw.integers(0, 900), draw.integers(0, 300), draw.integers(20, 100)
        val[target : target + size] = train[source : source + size]
    text = train.astype("<u2").tobytes()
    wanted = [
        start
        for start in range(0, 400 - 15, 16)
        if (at := text.find(val[start : start + 16].astype("<u2").tobytes())) >= 0 and at % 2 == 0
    ]
    found = find_shared_passages(build_tokens(train), build_tokens(val), 16)
    assert found is not None
    assert (found.passages, found.of, found.compared) == (len(wanted), 25, 1.0)
    assert found.first[0] == wanted[0]
    at = found.first[1]
    assert train[at : at + 16].tolist() == val[wanted[0] : wanted[0] + 16].tolist()


def test_lines_of_one_sign_are_no_leak() -> None:
    assert find_shared_passages(build_tokens([7] * 500), build_tokens([7] * 200), 64) is None
    assert find_shared_passages(build_tokens(range(500)), build_tokens(range(20)), 64) is None
    assert find_shared_passages(build_tokens(range(20)), build_tokens(range(500)), 64) is None


def test_of_large_text_a_part_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_leaks, "_CHUNK", 100)
    monkeypatch.setattr(text_leaks, "_MOST_CHUNKS", 3)
    monkeypatch.setattr(text_leaks, "_MOST_PASSAGES", 10)
    train = build_tokens(np.random.default_rng(5).integers(0, 60000, 3000))
    found = find_shared_passages(train, train, 20)
    assert found is not None
    assert found.of == 10
    assert found.compared == pytest.approx(3 * 119 / 3000, abs=0.01)
    assert 1 <= found.passages <= 3
    assert "% of it was compared" in text_leaks.format_shared_passages(found, "token", ("a@1", "b@2"))
