"""Documents that training and validation text share are counted and named, wherever sequences are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.data import TextFiles, TokenFiles
from mlscale.data.writing.write_shards import Part
from tests.contract.test_documents import validate
from tests.tokenizer_files import save_bpe
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
    (documents,) = read(tmp_path, 2, packing=packing, tokenizer=tokenizer).describe_leaks()
    assert documents.startswith("leak      2 of 5 validation documents, ")
    assert "are training documents, too: 3.txt equals 0.txt;" in documents
    assert documents.endswith("the metric counts what was learnt by heart")


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
    """They have no record of equal documents."""
    write(read(tmp_path, 2, tokenizer=save_bpe(tmp_path / "t.json")), tmp_path / "tokens")
    path = tmp_path / "tokens/dataset.json"
    document = json.loads(path.read_text())
    del document["shared_documents"], document["sha256"]
    path.write_text(json.dumps(document))
    assert TokenFiles(str(tmp_path / "tokens"), length=100, batch_size=4).describe_leaks() == []
    for hashes in (tmp_path / "tokens/.records").glob("*.hashes"):
        hashes.unlink()
    write(TextFiles(**data_paths(tmp_path), tokenizer=str(tmp_path / "t.json")), tmp_path / "tokens")
    assert json.loads(path.read_text())["shared_documents"] is None
