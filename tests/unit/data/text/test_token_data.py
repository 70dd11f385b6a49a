"""Text data whose tokens are those of a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.data import TextFiles, TextTable
from mlscale.data.encoders.tokenizer import Tokenizer
from mlscale.data.text.packing import Packing
from mlscale.data.text.token_blocks import IGNORED, TokenBlocks
from mlscale.errors import MLScaleError
from mlscale.tasks import GPT
from mlscale.tasks.batch import Batch
from mlscale.tasks.language import Language
from tests.tokenizer_files import TEXTS, save_bpe, save_words


def write_documents(folder: Path, count: int = 12) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:02}.txt").write_text(TEXTS[number % 4] * (number % 5 + 1), encoding="utf-8")
    return str(folder)


def build(tmp_path: Path, **settings: Any) -> TextFiles:
    settings = {"length": 16, "batch_size": 4, "tokenizer": save_bpe(tmp_path / "t.json"), **settings}
    return TextFiles(write_documents(tmp_path / "texts"), **settings)


def read_all(tmp_path: Path, data: TextFiles, split: str) -> list[list[int]]:
    """The ids of each document of a split, with its end, by the package alone."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "t.json"))
    return [[*tokenizer.encode(text.decode()).ids, 0] for text in data.list_documents(split)]


def test_blocks_are_the_tokens_of_all_documents(tmp_path: Path) -> None:
    data = build(tmp_path)
    facts, rows = data.facts(), data.get_rows("train")
    flat = np.concatenate(read_all(tmp_path, data, "train"))
    x, y = rows.take_samples(np.arange(len(rows)))
    assert len(rows) == (len(flat) - 17) // 16 + 1
    for number in range(len(rows)):
        assert np.array_equal(x[number], flat[16 * number : 16 * number + 16])
        assert np.array_equal(y[number], flat[16 * number + 1 : 16 * number + 17])
    tokenizer = Tokenizer.load_file(tmp_path / "t.json", None, where="data.tokenizer")
    assert (facts.vocab_size, facts.tokenizer, facts.document_end) == (320, tokenizer.digest, None)
    held = data.list_documents("val")
    assert facts.bytes_per_token == sum(len(text) + 1 for text in held) / sum(map(len, read_all(tmp_path, data, "val")))
    assert rows.get_key(0) == "00.txt@0"
    assert data.read_raw_samples("val", np.array([0]))


def test_bytes_are_packed_as_tokens_are(tmp_path: Path) -> None:
    """Without a tokenizer documents fill sequences in the same way, and blocks are what they were."""
    whole = build(tmp_path, tokenizer=None)
    blocks = build(tmp_path, tokenizer=None, packing="documents").get_rows("train")
    assert not isinstance(whole.get_rows("train"), TokenBlocks)
    _, y = blocks.take_samples(np.arange(len(blocks)))
    assert np.array_equal(np.sort(y[y != IGNORED]), np.sort(np.frombuffer(whole.get_rows("train").text, np.uint8)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("packing", ["documents", "none"])
def test_sequences_hold_whole_documents(tmp_path: Path, packing: str) -> None:
    data = build(tmp_path, packing=packing, length=256)
    rows, documents = data.get_rows("train"), read_all(tmp_path, data, "train")
    assert isinstance(rows, TokenBlocks)
    x, y = rows.take_samples(np.arange(len(rows)))
    found = []
    for row, targets in zip(x, y, strict=True):
        counted = targets[targets != IGNORED]
        # A document begins after an end, which the model reads, and ends with one, which it predicts.
        assert row[: len(counted)].tolist() == [0, *counted[:-1].tolist()]
        assert (targets[len(counted) :] == IGNORED).all()
        assert not row[len(counted) :].any()
        found += _split(counted)
    assert sorted(found) == sorted(documents)
    assert rows.weights is not None
    assert rows.weights.mean() == pytest.approx(1, abs=1e-5)
    assert (data.facts().document_end, data.facts().padding_share) == (0, rows.packing.padding_share)


def _split(tokens: Any) -> list[list[int]]:
    ends = np.flatnonzero(tokens == 0) + 1
    return [part.tolist() for part in np.split(tokens, ends) if len(part)]


def test_a_packed_document_is_read_as_it_is_alone(tmp_path: Path) -> None:
    """The model's outputs for a document do not depend on those that share its sequence, n-grams included."""
    data = build(tmp_path, packing="documents", length=96)
    rows = data.get_rows("train")
    assert isinstance(rows, TokenBlocks)
    torch.manual_seed(0)
    model = GPT(320, 96, width=32, layers=2, heads=2, ngrams=[2, 3], buckets=512, document_end=0).eval()
    several = next(row for row in range(len(rows)) if len(rows.packing.list_pieces(row)) > 1)
    x = torch.from_numpy(rows.take_samples(np.array([several]))[0])
    together, place = model(x)[0], 0
    for start, stop in rows.packing.list_pieces(several):
        alone = model(x[:, place : place + stop - start])[0]
        assert torch.allclose(together[place : place + stop - start], alone, atol=1e-5)
        place += stop - start
    crossing = GPT(320, 96, width=32, layers=2, heads=2, ngrams=[2, 3], buckets=512).eval()
    crossing.load_state_dict(model.state_dict())
    assert not torch.allclose(crossing(x)[0], together, atol=1e-3)


def test_each_token_counts_alike(tmp_path: Path) -> None:
    """The weighted loss of a batch is the sum over its tokens, by the mean number of tokens of a sequence."""
    data = build(tmp_path, packing="none", length=96, last="pad")
    data.setup("fit")
    task = Language(model=GPT(320, 96, width=32, layers=1, heads=2))
    rows = data.get_rows("train")
    assert isinstance(rows, TokenBlocks)
    assert isinstance(rows.packing, Packing)
    for batch in data.train_dataloader():
        loss = task.training_step(batch, 0).detach()
        filled = (batch["weight"] > 0).sum()
        logits = task.model(batch["x"][:filled]).detach()
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["y"][:filled].flatten(), reduction="sum")
        assert loss == pytest.approx(float(nats / rows.packing.count_tokens().mean() / 4), rel=1e-5)


def test_losses_without_padding_are_the_mean(tmp_path: Path) -> None:
    task = Language(model=GPT(50, 8, width=32, layers=1, heads=2))
    x = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(0))
    logits = task(x[:, :-1])
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none")
    assert torch.equal(task.losses(logits, Batch(x[:, :-1], x[:, 1:], None)), nats.view(3, 8).mean(1))


def test_texts_with_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"{TEXTS[i % 4]} {i}", "label": i % 2}) for i in range(40)))
    for save, offset in ((save_words, 0), (save_bpe, 1)):
        tokenizer = save(tmp_path / "t.json")
        data = TextTable(str(path), length=12, batch_size=8, tokenizer=tokenizer)
        encoder, rows = data.encoder(), data.get_rows("val")
        x, _ = rows.take_samples(np.arange(len(rows)))
        raw = data.read_raw_samples("val", np.arange(len(rows)))
        assert raw is not None
        assert np.array_equal(x, encoder.encode_samples(raw).tensors["input"])
        size = Tokenizer.load_file(tokenizer, None, where="data.tokenizer").size
        assert data.facts().vocab_size == size + offset
        assert data.facts().tokenizer is not None


def test_another_tokenizer_is_other_data(tmp_path: Path) -> None:
    first = build(tmp_path).facts()
    second = build(tmp_path, tokenizer=save_bpe(tmp_path / "u.json", size=330)).facts()
    assert first.version != second.version
    assert first.tokenizer != second.tokenizer


@pytest.mark.parametrize(
    ("settings", "what", "fix"),
    [
        ({"tokenizer": None, "special_tokens": {"eos": "x"}}, "no effect without data.tokenizer", "data.tokenizer="),
        ({"packing": "best"}, "data.packing is 'best'", "data.packing=documents"),
        ({"packing": "none", "stride": 8}, "data.stride has no effect with data.packing=none", "data.stride=null"),
        ({"length": 100_000}, "tokens of train text make no block", "data.length="),
    ],
)
def test_what_is_refused(tmp_path: Path, settings: dict[str, Any], what: str, fix: str) -> None:
    with pytest.raises(MLScaleError, match=what) as caught:
        build(tmp_path, **settings).facts()
    assert caught.value.fix.startswith(fix)


def test_a_language_model_needs_a_token_that_ends_documents(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="no token that ends a document") as caught:
        build(tmp_path, tokenizer=save_words(tmp_path / "w.json")).facts()
    assert caught.value.where == "data.special_tokens"
    named = build(tmp_path, tokenizer=save_words(tmp_path / "w.json"), special_tokens={"eos": "[SEP]"})
    assert named.facts().vocab_size == named.encoder().vocabulary


def test_a_length_without_room_for_the_template(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"a {i}", "label": i % 2}) for i in range(40)))
    with pytest.raises(MLScaleError, match="puts 2 tokens around each text"):
        TextTable(str(path), length=2, tokenizer=save_words(tmp_path / "w.json")).facts()
