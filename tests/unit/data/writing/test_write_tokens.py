"""Documents that are tokenised once have the tokens that a data module makes of them, whatever happens on the way."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale import contracts
from mlscale.atomic_files import write_bytes
from mlscale.cli import main
from mlscale.data import TextFiles, TokenFiles
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
from mlscale.data.text.documents import list_parts, read_documents
from mlscale.data.writing.train_tokenizer import train_tokenizer
from mlscale.data.writing.write_shards import Part
from mlscale.data.writing.write_tokens import CollectedTokens, TokenSource, WrittenTokens, write_tokens
from mlscale.errors import MLScaleError
from tests.contract.test_documents import validate
from tests.tokenizer_files import TEXTS, save_bpe, save_words
from tests.unit.data.text.test_token_data import write_documents


def write_lines(path: Path, count: int = 200) -> str:
    rows = ({"text": TEXTS[i % 4] * (i % 7) + f"{i}", "id": i} for i in range(count))
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def read_texts(tmp_path: Path, **settings: Any) -> TextFiles:
    settings = {"train": write_documents(tmp_path / "texts"), "length": 16, "batch_size": 4, **settings}
    return TextFiles(tokenizer=save_bpe(tmp_path / "t.json"), **settings)


def write(data: TextFiles, folder: Path, *, part: Part | None = None, size: int = 600) -> WrittenTokens:
    encoder = data.encoder()
    assert isinstance(encoder, TokenDocumentEncoder)
    source = TokenSource(
        data.list_token_parts(size), data.text, data.content_fraction, encoder, "TextFiles", data.file_keys
    )
    return write_tokens(
        source, folder, shard_bytes=size, licence="CC0", part=part or Part(), progress=lambda size: None
    )


def read(folder: Path, **settings: Any) -> TokenFiles:
    return TokenFiles(str(folder), **{"length": 16, "batch_size": 4, **settings})


def list_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def take_all(data: TextFiles | TokenFiles, split: str) -> list[Any]:
    rows = data.get_rows(split)
    return [values.tolist() for values in rows.take_samples(np.arange(len(rows)))]


@pytest.mark.parametrize("packing", ["concat", "documents", "none"])
def test_tokens_are_those_of_the_text_files(tmp_path: Path, packing: str) -> None:
    """The same sequences of both splits, from several files: they cross the ends of files as those of documents."""
    data = read_texts(tmp_path, packing=packing)
    written = write(data, tmp_path / "tokens")
    assert (written.written > 3, written.is_complete) == (True, True)
    tokens = read(tmp_path / "tokens", packing=packing)
    for split in ("train", "val"):
        assert take_all(tokens, split) == take_all(data, split)
        assert tokens.list_documents(split) == data.list_documents(split)
    facts, wanted = tokens.facts(), data.facts()
    assert (facts.vocab_size, facts.tokenizer, facts.document_end, facts.padding_share, facts.bytes_per_token) == (
        wanted.vocab_size, wanted.tokenizer, wanted.document_end, wanted.padding_share, wanted.bytes_per_token,
    )  # fmt: skip
    validate("tokens", json.loads((tmp_path / "tokens/dataset.json").read_text()))
    assert tokens.read_raw_samples("val", np.array([0])) == data.read_raw_samples("val", np.array([0]))


def test_lines_of_json_are_documents(tmp_path: Path) -> None:
    data = read_texts(tmp_path, train=write_lines(tmp_path / "a.jsonl"), text="text", val_fraction=0.2)
    written = write(data, tmp_path / "tokens", size=2000)
    assert written.written > 5
    tokens = read(tmp_path / "tokens")
    for split in ("train", "val"):
        assert take_all(tokens, split) == take_all(data, split)
    assert 10 < written.splits["val"]["documents"] < 80
    assert sum(split["documents"] for split in written.splits.values()) == 200


def test_ranges_of_lines_have_each_line_once(tmp_path: Path) -> None:
    path = Path(write_lines(tmp_path / "a.jsonl", 60))
    whole = [document.text for document in read_documents(list_parts([path], "text", 1 << 20)[0], "text", where="x")]
    assert len(whole) == 60
    for size in range(1, 400, 7):
        parts = list_parts([path], "text", size)
        assert [d.text for part in parts for d in read_documents(part, "text", where="x")] == whole


def test_begun_again_after_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before is kept, what was not whole is written again, and the bytes are the same."""
    data = read_texts(tmp_path)
    write(data, tmp_path / "whole")
    written = list[Path]()

    def stop(path: Path, content: bytes, **settings: Any) -> None:
        written.append(path)
        # After the tokens of a shard, and before its ends and its record.
        if len(written) == 5:
            raise KeyboardInterrupt
        write_bytes(path, content, **settings)

    monkeypatch.setattr(f"{CollectedTokens.__module__}.write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        write(data, tmp_path / "tokens")
    assert not (tmp_path / "tokens/dataset.json").exists()
    monkeypatch.undo()
    again = write(data, tmp_path / "tokens")
    assert again.written > 0 < again.found_before
    assert list_files(tmp_path / "tokens") == list_files(tmp_path / "whole")


def test_parts_write_what_one_process_writes(tmp_path: Path) -> None:
    data = read_texts(tmp_path)
    write(data, tmp_path / "whole")
    results = [write(data, tmp_path / "tokens", part=Part(number, 3)) for number in (2, 0, 1)]
    assert [result.is_complete for result in results] == [False, False, True]
    assert list_files(tmp_path / "tokens") == list_files(tmp_path / "whole")
    with pytest.raises(MLScaleError, match="it has no dataset"):
        read(tmp_path / "texts").facts()


def test_other_documents_are_refused(tmp_path: Path) -> None:
    write(read_texts(tmp_path), tmp_path / "tokens")
    (tmp_path / "texts" / "more.txt").write_text("another one")
    with pytest.raises(MLScaleError, match="holds other data") as caught:
        write(read_texts(tmp_path), tmp_path / "tokens")
    assert "source files" in caught.value.why


def test_files_that_are_not_whole_or_were_changed(tmp_path: Path) -> None:
    write(read_texts(tmp_path), tmp_path / "tokens")
    read(tmp_path / "tokens").verify_content()
    shard = sorted((tmp_path / "tokens/train").glob("*.bin"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-2] + b"\0\0" if content[-2:] != b"\0\0" else content[:-2] + b"\1\0")
    data = read(tmp_path / "tokens")
    data.facts()
    with pytest.raises(MLScaleError, match="has changed since it was written") as caught:
        data.verify_content()
    assert "SHA-256" in caught.value.why
    shard.write_bytes(content[:-1])
    with pytest.raises(MLScaleError, match="is not whole") as caught:
        read(tmp_path / "tokens").facts()
    assert caught.value.why == f"dataset.json states {len(content):,} bytes, and it has {len(content) - 1:,}"
    shard.unlink()
    with pytest.raises(MLScaleError, match="is missing"):
        read(tmp_path / "tokens").facts()


def test_another_tokenizer(tmp_path: Path) -> None:
    data = read_texts(tmp_path)
    write(data, tmp_path / "tokens")
    read(tmp_path / "tokens", tokenizer=str(tmp_path / "t.json")).facts()
    other = save_bpe(tmp_path / "other.json", size=290)
    with pytest.raises(MLScaleError, match="written by another tokenizer") as caught:
        read(tmp_path / "tokens", tokenizer=other).facts()
    digests = (data.facts().tokenizer, read_texts(tmp_path).facts().tokenizer)
    assert digests[0] is not None
    assert digests[0] in caught.value.why
    # The folder's own file was exchanged.
    (tmp_path / "tokens/tokenizer.json").write_bytes(Path(other).read_bytes())
    with pytest.raises(MLScaleError, match=r"not the one that wrote the tokens"):
        read(tmp_path / "tokens").facts()


def test_ids_that_do_not_fit(tmp_path: Path) -> None:
    write(read_texts(tmp_path), tmp_path / "tokens")
    path = tmp_path / "tokens/dataset.json"
    document = json.loads(path.read_text().replace('"uint16"', '"uint8"'))
    path.write_text(json.dumps(contracts.add_checksum(document)))
    with pytest.raises(MLScaleError, match="ids of 320 tokens do not fit into uint8") as caught:
        read(tmp_path / "tokens").facts()
    assert "256 ids" in caught.value.why
    path.write_text(path.read_text().replace('"uint8"', '"uint16"').replace('"splits"', '"parts"'))
    with pytest.raises(MLScaleError, match=r"dataset\.json can't be read"):
        read(tmp_path / "tokens").facts()


def test_large_vocabularies_have_four_bytes(tmp_path: Path) -> None:
    from mlscale.data.text.token_arrays import choose_token_type

    assert [choose_token_type(size).name for size in (65_536, 65_537)] == ["uint16", "uint32"]
    # An id over all others makes a vocabulary large, though it has few tokens.
    path = tmp_path / "words.json"
    document = json.loads(Path(save_words(path, special=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<eos>"))).read_text())
    document["model"]["vocab"]["dog"] = 70_000
    path.write_text(json.dumps(document))
    data = TextFiles(write_documents(tmp_path / "texts"), tokenizer=str(path), length=8, batch_size=4)
    write(data, tmp_path / "tokens")
    tokens = read(tmp_path / "tokens", length=8)
    assert json.loads((tmp_path / "tokens/dataset.json").read_text())["dtype"] == "uint32"
    assert max(map(max, take_all(tokens, "train")[0])) == 70_000
    assert take_all(tokens, "train") == take_all(data, "train")


def test_a_data_module_goes_to_other_processes_without_its_maps(tmp_path: Path) -> None:
    write(read_texts(tmp_path), tmp_path / "tokens")
    data = read(tmp_path / "tokens")
    before = take_all(data, "train")
    content = pickle.dumps(data.get_rows("train").tokens)  # type: ignore[attr-defined]
    assert len(content) < 6000
    assert np.array_equal(pickle.loads(content).take_span(0, 50)[1:17], before[1][0])


@pytest.mark.parametrize(
    ("line", "why"),
    [("{", "Expecting"), ('{"body": "a"}', "its keys are body"), ('{"text": 3}', "its keys are text"), ("[1]", "list")],
)
def test_lines_without_a_text(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(MLScaleError, match="a line has no text 'text'") as caught:
        read_texts(tmp_path, train=str(path), text="text").facts()
    assert why in caught.value.why
    assert "byte 17" in caught.value.why


def test_a_tokenizer_is_trained_on_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command, which prints how to train a model on what it has written."""
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    write_documents(tmp_path / "texts")
    words = ["prepare", "data=text_files", "data.train=texts", "to=tokens", "licence=CC0"]
    assert main([*words, "train_tokenizer=300"]) == 0
    first = list_files(tmp_path / "tokens")
    assert main([*words[:-1], "train_tokenizer=300"]) == 0
    assert list_files(tmp_path / "tokens") == first
    assert main([*words[:3], "to=again", "licence=CC0", "train_tokenizer=300"]) == 0
    assert list_files(tmp_path / "again") == first
    assert main(["prepare", "data=tokens", "data.root=tokens", "data.length=8"]) == 0
    assert main(words) == 2
    assert main([*words, "train_tokenizer=300", "data.tokenizer=tokens/tokenizer.json"]) == 2
    assert main([*words, "train_tokenizer=300", "format=tar"]) == 2
    assert main(["prepare", "data=digits", "to=x", "format=tokens"]) == 2


def test_a_vocabulary_without_room_for_bytes(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="train_tokenizer is 200") as caught:
        train_tokenizer([], 200, tmp_path / "t.json")
    assert caught.value.fix == "train_tokenizer=8000"


def test_a_held_out_file_that_is_not_text_is_named_by_its_key(tmp_path: Path) -> None:
    data = read_texts(tmp_path)
    held = data.list_token_parts(600)["val"][0]
    held.path.write_bytes(b"a\0b")
    with pytest.raises(MLScaleError, match="is not text") as caught:
        write(data, tmp_path / "tokens")
    assert caught.value.where == "data.train"
    assert caught.value.fix.startswith("data.train=")


def test_a_split_without_documents(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="a single document is not divided"):
        write(read_texts(tmp_path, train=str(write_documents(tmp_path / "one", 1))), tmp_path / "tokens")
    data = read_texts(tmp_path, train=write_lines(tmp_path / "a.jsonl", 3), text="text", val_fraction=0.001)
    with pytest.raises(MLScaleError, match="no document of val is left"):
        write(data, tmp_path / "tokens")
