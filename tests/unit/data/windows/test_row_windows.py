"""Windows of production, mixed with tables and texts: the encoder and the classes stay those of the data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from mlscale.data import Diabetes, TableFiles, TextFiles, TextTable, TokenFiles
from mlscale.data.array_data import MemoryData
from mlscale.data.windows.text_window import read_text_window, write_text_window
from mlscale.errors import MLScaleError
from tests.tokenizer_files import TEXTS
from tests.unit.data.writing.test_write_tokens import read_texts
from tests.unit.data.writing.test_write_tokens import write as write_token_files

CITIES = ("Rome", "Paris")


def write_table(path: Path, *, count: int = 60) -> Path:
    """Rows with numbers, names, and numbers that are names."""
    rows = [
        {"age": i / 7, "city": CITIES[i % 2], "zip": 100 + i % 3, "risk": ("low", "high")[i % 5 > 2], "cost": i * 1.5}
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def read_all(data: MemoryData, split: str) -> tuple[NDArray[Any], NDArray[Any], list[Any]]:
    rows = np.arange(len(data.get_rows(split)), dtype=np.int64)
    return (*data.get_rows(split).take_samples(rows), data.read_raw_samples(split, rows) or [])


def write_both(data: MemoryData, folder: Path, samples: list[Any], labels: list[Any], *, train: int) -> Path:
    data.write_window(folder / "train", samples[:train], labels[:train])
    data.write_window(folder / "held_out", samples[train:], labels[train:])
    return folder


ROWS: list[dict[str, Any]] = [
    {"age": 1e6, "city": "Oslo", "zip": "101", "risk": "low"},
    {"age": None, "city": "Rome", "zip": "7", "risk": "high"},
    {"age": 3.5, "city": None, "zip": "100", "risk": "low"},
    {"age": 4.5, "city": "Paris", "zip": "102", "risk": "low"},
]


def make_table(tmp_path: Path, target: str | list[str], **options: Any) -> TableFiles:
    path = tmp_path / "train.jsonl"
    ignored = [name for name in ("risk", "cost") if name not in target]
    kept = {"categorical": ["zip"], "ignore": ignored, "batch_size": 10}
    return TableFiles(str(path if path.exists() else write_table(path)), target, **{**kept, **options})


def test_a_table_keeps_its_encoder_and_its_classes(tmp_path: Path) -> None:
    before = make_table(tmp_path, "risk")
    samples = [{name: row[name] for name in ("age", "city", "zip")} for row in ROWS]
    window = write_both(before, tmp_path / "w1", samples, ["low", "high", "low", "low"], train=2)
    data = make_table(tmp_path, "risk", windows=[str(window)], replay=0.5, epoch_samples=40)
    assert data.encoder() == before.encoder()
    facts = data.facts()
    assert facts.class_names == ("high", "low")
    assert (facts.train_samples, facts.val_samples) == (before.facts().train_samples + 2, 2)
    assert facts.class_counts == tuple(np.add(before.facts().class_counts, [1, 1]))
    assert facts.version != before.facts().version

    x, y, raw = read_all(data, "val")
    assert raw == samples[2:]
    assert np.array_equal(x, data.encoder().encode_samples(samples[2:]).tensors["input"])
    assert y.tolist() == [1, 1]
    # What was held out before must not be forgotten.
    assert read_all(data, "test")[2] == read_all(before, "val")[2]
    x, y, raw = read_all(data, "train")
    assert raw[-2:] == samples[:2]
    assert np.array_equal(x[:-2], read_all(before, "train")[0])
    # Half of each batch is of the window, in every batch.
    data.setup("fit")
    for batch in data.train_dataloader():
        assert Counter(key.startswith("w1/") for key in batch["key"]) == {True: 5, False: 5}


def test_a_window_can_be_read_as_a_table(tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS]
    make_table(tmp_path, "risk").write_window(tmp_path / "w", rows, [row["risk"] for row in rows])
    path = str(tmp_path / "w/rows.parquet")
    # Missing values are null, as elsewhere.
    table = parquet.read_table(path)
    assert [table[name].null_count for name in ("age", "city", "zip", "risk")] == [1, 1, 0, 0]
    read = TableFiles(path, "risk", val=path)
    assert (read.facts().train_samples, read.facts().class_names) == (4, ("high", "low"))


def test_numbers_keep_their_scale(tmp_path: Path) -> None:
    before = make_table(tmp_path, "cost")
    window = write_both(before, tmp_path / "w1", [dict(row) for row in ROWS], [1e6, 2.5, -3.0, 4.0], train=2)
    data = make_table(tmp_path, "cost", windows=[str(window)])
    assert (data.facts().target_mean, data.facts().target_std) == (
        before.facts().target_mean,
        before.facts().target_std,
    )
    assert read_all(data, "val")[1].tolist() == [[-3.0], [4.0]]
    assert read_all(data, "train")[1][-2:].tolist() == [[1e6], [2.5]]
    bundled = Diabetes(batch_size=8)
    sample = read_all(bundled, "val")[2]
    window = write_both(bundled, tmp_path / "w2", sample, [float(i) for i in range(len(sample))], train=40)
    assert np.array_equal(read_all(Diabetes(windows=[str(window)]), "val")[0], read_all(bundled, "val")[0][40:])


def test_several_numbers_have_names(tmp_path: Path) -> None:
    before = make_table(tmp_path, ["cost", "age"])
    samples = [{"city": "Rome", "zip": "100"}, {"city": "Paris", "zip": "101"}]
    labels = [{"age": 1.0, "cost": 2.0}, {"cost": 4.0, "age": 3.0}]
    window = write_both(before, tmp_path / "w", samples, labels, train=1)
    data = make_table(tmp_path, ["cost", "age"], windows=[str(window)])
    assert read_all(data, "val")[1].tolist() == [[4.0, 3.0]]


def test_windows_add_up(tmp_path: Path) -> None:
    before = make_table(tmp_path, "risk")
    windows = []
    for number in (1, 2):
        labels = [row["risk"] for row in ROWS]
        windows.append(str(write_both(before, tmp_path / f"w{number}", [dict(row) for row in ROWS], labels, train=2)))
    data = make_table(tmp_path, "risk", windows=windows)
    assert [len(data.get_rows(split)) for split in ("train", "val", "test")] == [
        before.facts().train_samples + 4,
        2,
        before.facts().val_samples + 2,
    ]
    assert data.get_rows("train").get_key(before.facts().train_samples) == "w1/1"
    # Of the last one alone: the share of the window is not that of all windows.
    sizes, shares = data._get_source_mix() or (np.zeros(0), np.zeros(0))
    assert (sizes.tolist(), shares.tolist()) == ([before.facts().train_samples + 2, 2], [7, 3])


def test_old_samples_of_relabelled_classes_do_not_count(tmp_path: Path) -> None:
    before = make_table(tmp_path, "risk")
    window = write_both(before, tmp_path / "w", [dict(row) for row in ROWS], [row["risk"] for row in ROWS], train=2)
    data = make_table(tmp_path, "risk", windows=[str(window)], relabelled=["high"])
    _, y, raw = read_all(data, "train")
    old = before.facts().class_counts[1]
    assert y.tolist() == [1] * old + [1, 0]
    assert len(raw) == old + 2
    # Old samples that are left count as often as before: they do not take the places of the others.
    others = before.facts().class_counts[0]
    sizes, shares = data._get_source_mix() or (np.zeros(0), np.zeros(0))
    weight = 0.7 * old / (old + others)
    assert sizes.tolist() == [old, 2]
    assert shares[0] / shares.sum() == pytest.approx(weight / (weight + 0.3), abs=0.005)
    alone = make_table(tmp_path, "risk", windows=[str(window)], replay=0.0)
    assert read_all(alone, "train")[1].tolist() == [1, 0]
    assert alone._get_source_mix() is None
    with pytest.raises(MLScaleError, match="unknown class 'medium'"):
        make_table(tmp_path, "risk", windows=[str(window)], relabelled=["medium"]).facts()
    with pytest.raises(MLScaleError, match="nothing of the old data is left"):
        make_table(tmp_path, "risk", windows=[str(window)], relabelled=["high", "low"]).facts()


@pytest.mark.parametrize("names", [("ham", "spam"), (0, 1)])
def test_texts_keep_their_classes(tmp_path: Path, names: tuple[Any, Any]) -> None:
    rows = [json.dumps({"text": f"text {i}", "label": names[i % 2]}) for i in range(50)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    before = TextTable(str(tmp_path / "a.jsonl"), length=8)
    # The last one is cut within a character.
    texts = [b"one", "zw\u00f6lf".encode(), b"drei", b"vie\xc3"]
    labels = [str(names[number]) for number in (1, 0, 1, 1)]
    window = write_both(before, tmp_path / "w", texts, labels, train=2)
    data = TextTable(str(tmp_path / "a.jsonl"), length=8, windows=[str(window)])
    x, y, raw = read_all(data, "val")
    assert raw == texts[2:]
    assert np.array_equal(x, data.encoder().encode_texts(texts[2:]))
    assert y.tolist() == [1, 1]
    assert read_all(data, "train")[1][-2:].tolist() == [1, 0]


@pytest.mark.parametrize(("last", "kind"), [("\u00e4".encode(), pa.string()), (b"vie\xc3", pa.binary())])
def test_texts_are_texts_in_the_file_where_they_can_be(tmp_path: Path, last: bytes, kind: pa.DataType) -> None:
    write_text_window(tmp_path / "w", ["one", last], ["a", "b"])
    assert parquet.read_table(tmp_path / "w").schema.field("text").type == kind
    assert read_text_window(tmp_path / "w") == ([b"one", last], ["a", "b"])


def test_documents_become_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(1, 200)) * 4)
    options: dict[str, Any] = {"length": 16, "batch_size": 4}
    before = TextFiles(str(tmp_path / "a.txt"), **options)
    documents = [b"abc" * 20, b"x\0y" * 20, b"short"]
    assert before.count_window_rows(documents[:2]) == (122 - 17) // 16 + 1
    window = write_both(before, tmp_path / "w", documents, [None] * 3, train=1)
    write_both(before, tmp_path / "small", documents, [None] * 3, train=2)
    with pytest.raises(MLScaleError, match=r"6 bytes of the window .* make no block of 16") as caught:
        TextFiles(str(tmp_path / "a.txt"), windows=[str(tmp_path / "small")], **options).facts()
    assert "window.min_samples" in caught.value.fix
    data = TextFiles(str(tmp_path / "a.txt"), windows=[str(window)], **options)
    assert data.facts().train_samples == before.facts().train_samples + before.count_window_rows(documents[:1])
    assert read_all(data, "val")[2][0] == b"x y" * 5 + b"x"
    assert data.encoder() == before.encoder()


@pytest.mark.parametrize(
    ("options", "what", "fix"),
    [
        ({"windows": ["w"]}, "has no folder train", "restore"),
        ({"replay": 0.5}, "data.replay has no effect without data.windows", "data.windows="),
        ({"relabelled": ["low"]}, "data.relabelled has no effect", "data.windows="),
        ({"windows": ["w"], "replay": 1.0}, "data.replay is 1.0", "data.replay=0.7"),
        ({"windows": ["w"], "sampling": "balanced"}, "not by data.sampling=balanced", "data.sampling=shuffle"),
    ],
)
def test_wrong_settings_are_reported(tmp_path: Path, options: dict[str, Any], what: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        make_table(tmp_path, "risk", **options).facts()
    assert what in str(caught.value)
    assert fix in str(caught.value)


def test_the_same_window_is_the_same_data_in_any_folder(tmp_path: Path) -> None:
    before = make_table(tmp_path, "risk")
    samples = [{name: row[name] for name in ("age", "city", "zip")} for row in ROWS]

    def list_ages(*windows: Path) -> tuple[str, list[float]]:
        data = make_table(tmp_path, "risk", windows=list(map(str, windows)), replay=0.5, epoch_samples=40)
        data.setup("fit")
        return data.facts().version, [age for batch in data.train_dataloader() for age in batch["x"][:, 0].tolist()]

    first, second = (
        write_both(before, tmp_path / name, samples, ["low", "high", "low", "low"], train=2)
        for name in ("1se8", "9kz2")
    )
    other = write_both(before, tmp_path / "other", samples, ["low", "high", "high", "low"], train=2)
    assert list_ages(first) == list_ages(second)
    # Other labels are other data, as is another order.
    assert len({list_ages(*windows)[0] for windows in ([first], [other], [first, other], [other, first])}) == 4


def test_documents_are_mixed_with_files_of_tokens(tmp_path: Path) -> None:
    """They get the tokens of the folder's tokenizer, and what validates is the text of production."""
    texts = read_texts(tmp_path)
    write_token_files(texts, tmp_path / "tokens")
    options: dict[str, Any] = {"length": 16, "batch_size": 4}
    before = TokenFiles(str(tmp_path / "tokens"), **options)
    documents = [TEXTS[number].encode() * 4 for number in range(4)]
    window = write_both(before, tmp_path / "w", documents, [None] * 4, train=2)
    data = TokenFiles(str(tmp_path / "tokens"), windows=[str(window)], replay=0.5, **options)
    wanted = TextFiles(
        str(tmp_path / "texts"), tokenizer=str(tmp_path / "t.json"), windows=[str(window)], replay=0.5, **options
    )
    for split in ("train", "val", "test"):
        found, expected = read_all(data, split), read_all(wanted, split)
        assert [values.tolist() for values in found[:2]] == [values.tolist() for values in expected[:2]]
        assert found[2] == expected[2]
    assert data.list_documents("val") == wanted.list_documents("val") == documents[2:]
    assert data.encoder().digest == before.encoder().digest
    with pytest.raises(MLScaleError, match=r"can't be mixed with data\.packing=none"):
        TokenFiles(str(tmp_path / "tokens"), windows=[str(window)], packing="none", **options).facts()
