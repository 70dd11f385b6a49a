"""Documents: found, held out whole, cut into blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlscale.cli import main
from mlscale.data import TextFiles
from mlscale.data.text.documents import Document, hold_out_documents, read_all_documents
from mlscale.data.text.token_blocks import TextBlocks
from mlscale.errors import MLScaleError
from tests.tokenizer_files import TEXTS


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_folders_globs_and_paths(tmp_path: Path) -> None:
    write(tmp_path, a="one", b="two")
    write(tmp_path / "deep", c="three")
    (tmp_path / "d.md").write_text("four")
    found = read_all_documents([str(tmp_path), str(tmp_path / "*.md")], None, where="data.train")
    assert [document.name for document in found] == ["a.txt", "b.txt", "d.md", "deep/c.txt"]
    assert found[3].text == b"three"


@pytest.mark.parametrize(
    ("pattern", "why"), [("nothing.txt", "looked for"), ("empty", "no .txt file"), ("binary.txt", "zero bytes")]
)
def test_what_is_no_text_is_reported(tmp_path: Path, pattern: str, why: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    with pytest.raises(MLScaleError) as caught:
        read_all_documents(str(tmp_path / pattern), None, where="data.train")
    assert why in caught.value.why
    assert caught.value.where == "data.train"


def test_a_file_that_is_no_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(9):
        (tmp_path / f"{number}.txt").write_bytes(b"a\0b" if number % 2 else TEXTS[0].encode() * 20)
    with pytest.raises(MLScaleError, match=r"1\.txt' is not text"):
        read_all_documents(str(tmp_path), None, where="data.train")
    command = ["prepare", "data=text_files", f"data.train={tmp_path}", f"to={tmp_path}/out", "train_tokenizer=300"]
    assert main(command) == 2
    assert "1.txt' is not text" in capsys.readouterr().err


def test_documents_are_held_out_whole() -> None:
    documents = [Document(str(i), bytes([65 + i]) * 100) for i in range(20)]
    train, val = hold_out_documents(documents, 0.2, where="data.val_fraction")
    assert len(val) == 4
    assert sorted(train + val) == sorted(documents)
    assert hold_out_documents(documents[::-1], 0.2, where="data.val_fraction")[1] == val[::-1]


def test_of_two_unlike_documents_the_smaller_is_held_out() -> None:
    long, short = Document("long", b"x" * 900), Document("short", b"y" * 300)
    assert hold_out_documents([long, short], 0.1, where="") == ([long], [short])


def test_of_one_document_the_end_is_held_out() -> None:
    (train,), (val,) = hold_out_documents([Document("a", b"0123456789")], 0.2, where="")
    assert (train.text, val.text) == (b"01234567", b"89")


def test_blocks_say_every_next_byte_once() -> None:
    blocks = TextBlocks([Document("a", b"abcdefg"), Document("b", b"hij")], length=4, stride=4)
    x, y = blocks.take_samples(np.arange(len(blocks)))
    assert bytes(x.flatten().tolist()) == b"abcdefg\0"
    assert bytes(y.flatten().tolist()) == b"bcdefg\0h"
    assert [blocks.get_key(i) for i in range(len(blocks))] == ["a@0", "a@4"]


def test_a_batch_of_one_has_arrays_of_its_own() -> None:
    """As rows of a table do: an augmentation in place of x leaves y as it is."""
    x, y = TextBlocks([Document("a", b"abcdefg")], length=4, stride=4).take_samples(np.arange(1))
    assert not np.shares_memory(x, y)


def test_facts_and_batches(tmp_path: Path) -> None:
    write(tmp_path, **{f"t{i}": f"text {i} " * 20 for i in range(10)})
    data = TextFiles(str(tmp_path), length=8, batch_size=4, val_fraction=0.2)
    facts = data.facts()
    assert (facts.sample, facts.dtype, facts.length, facts.vocab_size) == ((8,), "int64", 8, 256)
    assert facts.num_classes is None
    held = {key.split("@")[0] for batch in data.val_dataloader() for key in batch["key"]}
    batch = next(iter(data.train_dataloader()))
    assert batch["x"].shape == batch["y"].shape == (4, 8)
    assert (batch["x"][:, 1:] == batch["y"][:, :-1]).all()
    trained = {key.split("@")[0] for batch in data.train_dataloader() for key in batch["key"]}
    assert held
    assert not held & trained
    assert TextFiles(str(tmp_path), length=8, batch_size=4, val_fraction=0.2).facts() == facts
    write(tmp_path, t0="another text " * 20)
    assert TextFiles(str(tmp_path), length=8, batch_size=4, val_fraction=0.2).facts().version != facts.version


def test_too_little_text_is_reported(tmp_path: Path) -> None:
    write(tmp_path, a="short")
    with pytest.raises(MLScaleError, match="make no block of 256") as caught:
        TextFiles(str(tmp_path)).facts()
    assert caught.value.where == "data.length"


def test_augmentations_of_images_are_refused(tmp_path: Path) -> None:
    from mlscale.data import Augment

    with pytest.raises(MLScaleError, match="one of images"):
        TextFiles(str(tmp_path), augment=Augment(shift=0.1))
