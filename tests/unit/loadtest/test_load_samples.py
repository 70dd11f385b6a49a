"""Samples out of files and folders."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.errors import MLScaleError
from mlscale.loadtest.load_samples import read_request_samples
from mlscale.loadtest.server_model import InputTensor, ServerModel

MODEL = ServerModel("m", (InputTensor("input", "uint8", (1, 4, 4)),), 3)
RAW = np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)


def written(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "s.npz", **arrays)
    return folder / "s.npz"


def test_samples_and_labels(tmp_path: Path) -> None:
    samples = read_request_samples(written(tmp_path, raw=RAW, labels=np.array(["a", "b", "a"])), MODEL)
    assert (samples.tensors["input"] == RAW).all()
    assert samples.labels == ("a", "b", "a")
    assert read_request_samples(written(tmp_path, raw=RAW), MODEL).labels is None


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": RAW}, "no array 'raw' but x"),
        ({"raw": RAW[:, 0]}, r"takes \(n, 1, 4, 4\)"),
        ({"raw": RAW[:0]}, "not equally many"),
        ({"raw": RAW.astype(np.float32)}, "takes uint8"),
        ({"raw": RAW, "labels": np.array(["a"])}, "for 3 samples"),
        ({"raw": RAW.astype(object)}, "pickle|Object"),
    ],
)
def test_what_can_not_be_sent(tmp_path: Path, arrays: dict[str, Any], why: str) -> None:
    with pytest.raises(MLScaleError, match="can't be sent") as caught:
        read_request_samples(written(tmp_path, **arrays), MODEL)
    assert caught.match("can't be sent")
    import re

    assert re.search(why, caught.value.why)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04nonsense", b"\x93NUMPY"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(MLScaleError, match="can't be sent"):
        read_request_samples(tmp_path / "s.npz", MODEL)


COLUMNS = [
    {"name": "b", "type": "number"},
    {"name": "c", "type": "category"},
    {"name": "a", "type": "number"},
]
TABLE = ServerModel("t", (), raw_input={"type": "table", "columns": COLUMNS})
TEXTS = ServerModel("s", (), raw_input={"type": "text"})
PHOTOS = ServerModel("p", (), raw_input={"type": "image"})


def test_arrays_of_several_inputs(tmp_path: Path) -> None:
    model = ServerModel("m", (InputTensor("x", "float32", (2,)), InputTensor("words", "object", ())))
    path = written(tmp_path, x=np.zeros((3, 2), np.float32), words=np.array(["a", "b", "c"]))
    samples = read_request_samples(path, model)
    assert samples.tensors["words"].tolist() == ["a", "b", "c"]
    assert len(samples) == 3
    with pytest.raises(MLScaleError, match="can't be sent") as reported:
        read_request_samples(written(tmp_path, x=np.zeros((3, 2), np.float32)), model)
    assert "not each of the arrays x, words but x" in reported.value.why


def test_rows_of_a_csv_have_the_columns_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,target,c,b\n1.5,yes,007,2\n,no,,nan\n1e3,yes,3,abc\n")
    samples = read_request_samples(tmp_path / "rows.csv", TABLE)
    assert samples.form == "row"
    assert list(samples.raw) == [
        {"b": 2.0, "c": "007", "a": 1.5},
        {"b": None, "c": None, "a": None},
        {"b": "abc", "c": "3", "a": 1000.0},
    ]
    (tmp_path / "short.csv").write_text("a,b\n1,2\n")
    with pytest.raises(MLScaleError, match="can't be sent") as reported:
        read_request_samples(tmp_path / "short.csv", TABLE)
    assert reported.value.why == "the table has no column 'c': its columns are: 'a', 'b'"


def test_lines_of_json_are_rows_or_texts(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1, "b": null, "c": "x", "z": 0}\n\n{"a": 2, "b": 3, "c": "y"}\n')
    samples = read_request_samples(tmp_path / "rows.jsonl", TABLE)
    assert list(samples.raw) == [{"b": None, "c": "x", "a": 1}, {"b": 3, "c": "y", "a": 2}]
    (tmp_path / "texts.jsonl").write_text('"one"\n"zwei ü"\n')
    assert list(read_request_samples(tmp_path / "texts.jsonl", TEXTS).raw) == [b"one", "zwei ü".encode()]


def test_texts_are_lines_of_a_file_or_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"one\n\n\xff two\n")
    assert list(read_request_samples(tmp_path / "lines.txt", TEXTS).raw) == [b"one", b"\xff two"]
    assert list(read_request_samples(tmp_path, TEXTS).raw) == [b"one\n\n\xff two\n"]


def test_images_of_a_folder_are_files(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    for name in ("b.png", "cats/a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    samples = read_request_samples(tmp_path, PHOTOS)
    assert (samples.form, list(samples.raw)) == ("image", [b"b.png", b"cats/a.JPG"])
    assert list(read_request_samples(tmp_path / "b.png", PHOTOS).raw) == [b"b.png"]


def write_warmup(folder: Path, *requests: dict[str, Any]) -> Path:
    (folder / "warmup").mkdir(exist_ok=True)
    (folder / "warmup" / "warmup.json").write_text(
        json.dumps({"format": "mlscale/warmup/1", "tolerance": 1e-3, "requests": requests})
    )
    return folder


def test_a_servable_is_sent_its_warmup_requests(tmp_path: Path) -> None:
    row = {"a": 1, "b": None, "c": "x"}
    refused = {"key": "empty", "form": "row", "sample": {}, "error": "it lacks the column"}
    answered = {"key": "1", "form": "row", "sample": row, "answer": {"value": 1}}
    assert list(read_request_samples(write_warmup(tmp_path, refused, answered), TABLE).raw) == [row]
    text = {"key": "1", "form": "text", "sample": "é", "answer": {}}
    (tmp_path / "warmup" / "1.txt").write_bytes(b"\xff")
    file = {"key": "2", "form": "file", "file": "1.txt", "answer": {}}
    assert list(read_request_samples(write_warmup(tmp_path, text, file), TEXTS).raw) == ["é".encode(), b"\xff"]
    np.save(tmp_path / "warmup" / "0.npy", RAW[0])
    array = {"key": "1", "form": "array", "file": "0.npy", "answer": {}}
    samples = read_request_samples(write_warmup(tmp_path, array, array), MODEL)
    assert (samples.tensors["input"] == RAW[[0, 0]]).all()
    with pytest.raises(MLScaleError, match="can't be sent"):
        read_request_samples(write_warmup(tmp_path, refused), TABLE)


@pytest.mark.parametrize(
    ("name", "content", "model", "why"),
    [
        ("a.csv", "a,b\n1,2\n", TEXTS, "it is not clear which column has the texts: type member=<column>"),
        ("a.csv", "a\n1\n", MODEL, "the server does not state that m takes samples of the form row"),
        ("a.txt", "\n \n", TEXTS, "it holds no samples"),
        ("a.jsonl", "[1]\n", TABLE, "line 1 is neither an object, a row by column, nor a text"),
        ("a.jsonl", "{", TABLE, "line 1 is not JSON: "),
        ("a.parquet", "", TABLE, "the table can't be read"),
    ],
)
def test_other_files_are_reported(tmp_path: Path, name: str, content: str, model: ServerModel, why: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(MLScaleError, match="can't be sent") as reported:
        read_request_samples(tmp_path / name, model)
    assert why in reported.value.why


def test_only_the_first_samples_of_large_files_are_read_which_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlscale.loadtest.load_samples.MOST_BYTES", 1 << 19)
    # Half a MiB ends within a line, which is not sent, and not read as broken JSON.
    (tmp_path / "lines.txt").write_text("x" * 999 + "\n", encoding="utf-8")
    samples = read_request_samples(tmp_path / "lines.txt", TEXTS)
    assert samples.name == "1 sample of lines.txt"
    (tmp_path / "lines.txt").write_text(("x" * 999 + "\n") * 1000, encoding="utf-8")
    samples = read_request_samples(tmp_path / "lines.txt", TEXTS)
    assert {len(line) for line in samples.raw} == {999}
    assert samples.name == f"the first {len(samples):,} samples of lines.txt, which are 0.5 MiB,"
    (tmp_path / "texts.jsonl").write_text(('"' + "é" * 400 + '"\n') * 1000, encoding="utf-8")
    assert read_request_samples(tmp_path / "texts.jsonl", TEXTS).name.startswith("the first 655 samples")
    (tmp_path / "rows.csv").write_text("a,b,c\n" + f"1,2,{'y' * 1000}\n" * 1000)
    assert read_request_samples(tmp_path / "rows.csv", TABLE).name.startswith("the first 5")
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(bytes(1 << 18))
    assert read_request_samples(tmp_path, PHOTOS).name.startswith("the first 2 samples of")
    found = read_request_samples(written(tmp_path, raw=np.zeros((1 << 16, 1, 4, 4), np.uint8)), MODEL)
    assert (found.name, len(found)) == ("the first 32,768 samples of s.npz, which are 0.5 MiB,", 1 << 15)


def test_folders_have_images_of_every_format_and_report_what_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.gif", "b.tif", "c.pgm", "d.heic"):
        (tmp_path / name).write_bytes(b"x")
    samples = read_request_samples(tmp_path, PHOTOS)
    assert (samples.form, len(samples)) == ("image", 3)
    assert "skipped files that do not end as images do: 1, the first: d.heic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mails.jsonl", '{"text": "good day", "label": "ham"}\n{"text": "3", "label": "spam"}\n{"text": null}\n'),
        ("mails.jsonl", '{"body": "good day", "label": 1}\n{"body": "3", "label": 0}\n'),
        ("mails.csv", "label,text\nham,good day\nspam,3\nspam,\n"),
        ("mails.tsv", "text\ngood day\n3\n"),
    ],
)
def test_texts_are_sent_without_their_labels(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    samples = read_request_samples(tmp_path / name, TEXTS)
    assert (samples.form, list(samples.raw)) == ("text", [b"good day", b"3"])


def test_the_bytes_of_a_text_are_sent_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_bytes("text,label\nGröße,ham\n".encode("latin-1"))
    assert list(read_request_samples(tmp_path / "old.csv", TEXTS).raw) == ["Größe".encode("latin-1")]


def test_a_column_of_texts_that_is_not_clear_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "mails.csv").write_text("subject,body\na,b\n")
    with pytest.raises(MLScaleError) as caught:
        read_request_samples(tmp_path / "mails.csv", TEXTS)
    assert caught.value.why.endswith("none of numbers: 'subject', 'body'")
    assert caught.value.fix == "member=subject\nmember=body"
    assert list(read_request_samples(tmp_path / "mails.csv", TEXTS, "body").raw) == [b"b"]
    with pytest.raises(MLScaleError, match="these samples can't be sent") as caught:
        read_request_samples(tmp_path / "mails.csv", TEXTS, "Body")
    assert caught.value.why == "the table has no column 'Body': its columns are: 'subject', 'body'"
    # A number is not what a model of texts is sent.
    (tmp_path / "numbered.csv").write_text("n,body\n1,b\n")
    assert list(read_request_samples(tmp_path / "numbered.csv", TEXTS).raw) == [b"b"]


def test_a_folder_of_texts_may_have_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# one")
    (tmp_path / "b.png").write_bytes(b"b")
    assert list(read_request_samples(tmp_path, TEXTS).raw) == [b"# one"]
    assert list(read_request_samples(tmp_path, PHOTOS).raw) == [b"b"]


def test_a_table_in_latin1_is_converted_by_the_line_of_the_message(tmp_path: Path) -> None:
    path = tmp_path / "old rows.csv"
    path.write_bytes("a,c,b\n1,Größe,2\n".encode("latin-1"))
    with pytest.raises(MLScaleError) as caught:
        read_request_samples(path, TABLE)
    subprocess.run(str(caught.value.fix), shell=True, check=True)
    assert read_request_samples(tmp_path / "old rows-utf8.csv", TABLE).raw[0]["c"] == "Größe"
