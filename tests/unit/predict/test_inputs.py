"""Folders, shards and tables: in one order, with a key each, and a digest that changes with them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.errors import MLScaleError
from mlscale.export.format1 import build_format1_encoder
from mlscale.predict.input_items import Inputs
from mlscale.predict.input_tables import TableInputs
from mlscale.predict.inputs import open_inputs
from mlscale.predict.score_parts import prepare_sample
from mlscale.task_types.registry import get_task_type

IMAGE = build_format1_encoder((1, 8, 8), "uint8", {})


def png(value: int = 7, size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, value).save(file, "PNG")
    return file.getvalue()


_CUT = "the JPEG is cut short in its header, or of a kind that is not decoded"
_UNKNOWN = (
    "it is not an image of a known format (BMP, DIB, GIF, JPEG, PNG, PPM, TIFF, WEBP), or its header is "
    "corrupt; it begins b'no'"
)


def opened(spec: Any, **changes: Any) -> Inputs:
    return open_inputs(
        spec if isinstance(spec, list) else str(spec), **{"member": None, "key": None, "columns": (), **changes}
    )


def reported(inputs: Inputs, encoder: Encoder = IMAGE) -> list[tuple[str, Any]]:
    """Keys with the first value of each sample, or why there is none."""
    found = []
    for item in inputs.read_items(range(len(inputs))):
        try:
            found.append((item.key, encoder.encode_sample(prepare_sample(item))[INPUT].ravel()[0].item()))
        except Exception as error:
            found.append((item.key, str(error).split(" <")[0]))
    return found


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for number, name in enumerate(("b/x.png", "a.PNG", "c.jpeg")):
        (tmp_path / name).write_bytes(png(number) if name != "c.jpeg" else b"\xff\xd8no")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_bytes(png())
    inputs = opened(tmp_path)
    assert reported(inputs) == [("a.PNG", 1), ("b/x.png", 0), ("c.jpeg", _CUT)]
    assert opened(tmp_path).digest == inputs.digest
    (tmp_path / "a.PNG").unlink()
    assert opened(tmp_path).digest != inputs.digest
    assert reported(inputs)[0] == ("a.PNG", "No such file or directory")  # gone since it was listed
    changed = opened(tmp_path)
    (tmp_path / "b/x.png").write_bytes(png(9))
    os.utime(tmp_path / "b/x.png", ns=(1, 1))
    assert opened(tmp_path).digest != changed.digest


@pytest.mark.parametrize("name", ["a.png", "a.csv"])
def test_files_of_a_system_are_reported_once(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlscale.data.shards.system_files._reported", set())
    (tmp_path / name).write_bytes(png() if name == "a.png" else b"x,y\n1,2\n")
    for extra in (".DS_Store", f"._{name}", "Thumbs.db"):
        (tmp_path / extra).write_bytes(b"\0\5\26\7")
    assert len(opened(tmp_path, columns=("x", "y") if name == "a.csv" else ())) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("skipped files of macOS, Windows or a storage system: 3, the first: .DS_Store")


def test_links_are_followed_but_not_in_circles_or_to_nowhere(tmp_path: Path) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for folder in (photos / "b", elsewhere):
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(png(1))
    (photos / "more").symlink_to(elsewhere)
    (photos / "b/up").symlink_to(photos)
    (photos / "b/wide").symlink_to(tmp_path)
    (elsewhere / "back").symlink_to(photos / "b")
    (photos / "b/there").symlink_to(elsewhere)
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    keys = [f"{way}x.png" for way in ("b/", "b/there/", "more/", "more/back/")]
    assert reported(opened(photos)) == sorted([*((key, 1) for key in keys), ("gone.png", "No such file or directory")])


def test_shards(tmp_path: Path) -> None:
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:03}.tar", "w") as tar:
            for key in range(3):
                name, content = (
                    (f"{key}.png", png(10 * shard + key)) if (shard, key) != (1, 2) else (f"{key}.cls", b"1")
                )
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    inputs = opened(f"{tmp_path}/{{000..001}}.tar")
    wanted = [("000.tar/0", 0), ("000.tar/1", 1), ("000.tar/2", 2), ("001.tar/0", 10), ("001.tar/1", 11)]
    assert reported(inputs) == [*wanted, ("001.tar/2", "it has no member that is scored")]
    assert opened(tmp_path).digest == opened(f"{tmp_path}/*.tar").digest == inputs.digest
    with pytest.raises(MLScaleError, match=r"have no member '\.jpg'"):
        opened(tmp_path, member="jpg")


def write_members(path: Path, **members: bytes) -> None:
    """A shard of one sample, with members by extension, a _ for each dot."""
    with tarfile.open(path, "w") as tar:
        for extension, content in members.items():
            info = tarfile.TarInfo(f"a.{extension.replace('_', '.')}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_of_several_images_of_a_sample_none_is_guessed(tmp_path: Path) -> None:
    scene = tmp_path / "scene.tar"
    write_members(scene, png=png(1), mask_png=png(2), json=b"[]")
    assert reported(opened(scene)) == [("scene.tar/a", 1)]
    assert reported(opened(scene, member="mask.png")) == [("scene.tar/a", 2)]
    masks = tmp_path / "masks.tar"
    write_members(masks, mask_png=png(2))
    assert reported(opened(masks)) == [("masks.tar/a", 2)]
    both = tmp_path / "both.tar"
    write_members(both, left_png=png(3), depth_png=png(4))
    for trained_on in (None, "png", "jpg"):
        with pytest.raises(MLScaleError, match="it is not clear which member is scored") as caught:
            opened(both, trained_on=trained_on)
        assert caught.value.why == "sample both.tar/a has several: .depth.png, .left.png"
    assert reported(opened(both, **{caught.value.fix.split("=")[0]: caught.value.fix.split("=")[1]})) == [
        ("both.tar/a", 3)
    ]
    assert reported(opened(both, trained_on="depth.png;depth.jpg")) == [("both.tar/a", 4)]


def test_tables_of_images(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(png(3))
    table = pa.table({"id": ["p", "q", "r"], "image": [png(1), b"no", None], "path": ["one.png", "two.png", "one.png"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    first = [
        ("a.parquet:1", 1),
        ("a.parquet:2", _UNKNOWN),
        ("a.parquet:3", "the column is empty here"),
    ]
    assert reported(opened(tmp_path / "a.parquet")) == first
    by_path = opened(tmp_path / "a.parquet", member="path", key="id")
    assert reported(by_path) == [("p", 3), ("q", "two.png: No such file or directory"), ("r", 3)]
    pq.write_table(pa.table({"image": [{"bytes": png(4), "path": "x"}]}), tmp_path / "b.parquet")
    assert reported(opened([str(tmp_path / "b.parquet"), str(tmp_path / "a.parquet")]))[:2] == [
        ("b.parquet:1", 4),
        first[0],
    ]
    with pytest.raises(MLScaleError, match="the table has no column 'id2'"):
        opened(tmp_path / "a.parquet", key="id2")


def test_tables_of_numbers_and_of_texts(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("id,x,y\n5,1.5,2\n6,,4\n")
    rows = build_format1_encoder((2,), "float32", {})
    assert reported(opened(tmp_path / "n.csv", key="id"), rows) == [("5", 1.5), ("6", "value 1 is not a finite number")]
    assert reported(opened(tmp_path / "n.csv", columns=("y", "x")), rows)[0] == ("line 2 of n.csv", 2.0)
    assert reported(opened(tmp_path / "n.csv"), rows)[0][1] == "it has the shape (3,), and the model takes (2,)"
    (tmp_path / "t.tsv").write_text("text\tn\nhé\t1\n")
    (item,) = opened(tmp_path / "t.tsv").read_items(range(1))
    text = build_format1_encoder((5,), "int64", {}).encode_sample(prepare_sample(item))[INPUT]
    assert text.tolist() == [105, 196, 170, 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("x.parquet", b"PAR1 no", "the table can't be read"),
        ("x.csv", b"", "the table can't be read"),
        ("x.csv", b"a,b\n{},[]\nx,y\n", "the table has nothing to score"),
    ],
)
def test_what_is_no_input_is_reported(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MLScaleError, match=what):
        opened(tmp_path / name)


def test_an_empty_folder_and_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="no image to score"):
        opened(tmp_path)
    for spec in (tmp_path / "no.csv", tmp_path / "no.tar", ""):
        with pytest.raises(MLScaleError):
            opened(spec)


def test_what_is_prepared_has_the_shape_that_the_model_takes(tmp_path: Path) -> None:
    (tmp_path / "wide.png").write_bytes(png(7, (20, 10)))
    (item,) = opened(tmp_path).read_items(range(1))
    with pytest.raises(ValueError, match="it has 20×10 pixels, the model takes 8×8"):
        IMAGE.encode_sample(prepare_sample(item))
    resized = build_format1_encoder((3, 8, 8), "uint8", {"resize": "x"}).encode_sample(prepare_sample(item))
    assert resized[INPUT].shape == (3, 8, 8)


def test_answers_of_each_kind() -> None:
    logits = np.array([[2.0, 0.0, -1.0]], np.float32)
    labels = ("a", "b", "c")
    assert get_task_type("classification").build_predictions({"logits": logits}, labels)["predicted"] == ["a"]
    assert get_task_type("multilabel").build_predictions({"logits": logits - 0.5}, labels)["predicted"] == [["a"]]
    assert get_task_type("regression").build_predictions({"value": logits}, ())["value"].tolist() == [[2.0, 0.0, -1.0]]  # type: ignore[union-attr]
    masks = np.zeros((1, 3, 4, 5), np.float32)
    masks[:, 2, 1] = 1
    (content,) = get_task_type("segmentation").build_predictions({"logits": masks}, labels)["mask"]
    assert np.asarray(Image.open(io.BytesIO(content)))[1].tolist() == [2] * 5


def test_of_several_texts_the_column_of_training_is_scored(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Nachricht,Abteilung\nHallo,Lager\n")
    inputs = opened(tmp_path / "a.csv", kind="text", trained_on="Nachricht")
    assert [item.content for item in inputs.read_items(range(1))] == [b"Hallo"]
    with pytest.raises(MLScaleError, match="nothing to score") as caught:
        opened(tmp_path / "a.csv", kind="text", trained_on="text")
    assert caught.value.fix == "member=Nachricht\nmember=Abteilung"


def test_texts_of_a_table_are_bytes_whatever_they_hold(tmp_path: Path) -> None:
    texts = [b"a cat.jpg", b"NA", b"007", b"\xff\xfe", "🐧".encode(), b'two\nlines, "quoted"', b""]
    quoted = [b'"' + text.replace(b'"', b'""') + b'"' for text in texts]
    lines = [b"n,text", *(b"%d,%s" % (number, text) for number, text in enumerate(quoted))]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines) + b"\n")
    column = pa.array([*texts[:6], None], pa.binary()).view(pa.string())  # as a careless writer has it
    pq.write_table(pa.table({"text": column}), tmp_path / "b.parquet", row_group_size=3)
    for name, key in (("a.csv", "n"), ("b.parquet", None)):
        items = opened(tmp_path / name, kind="text", key=key).read_items(range(7))
        assert [item.content for item in items] == texts
        assert [item.error for item in items] == [""] * 6 + ["the column is empty here"]
    assert [item.key for item in opened(tmp_path / "a.csv", kind="text", key="n").read_items(range(2))] == ["0", "1"]


def test_what_is_looked_for_follows_from_the_kind_of_the_model(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3.0))
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "c.md").write_text("c")
    (tmp_path / "d.png").write_bytes(png())
    for kind, keys in (("tensor", ["a.npy"]), ("text", ["b.txt", "c.md"]), ("document", ["b.txt", "c.md"])):
        assert [item.key for item in opened(tmp_path, kind=kind).read_items(range(len(keys)))] == keys
    assert [item.key for item in opened(tmp_path, kind="image").read_items(range(1))] == ["d.png"]
    (item,) = opened(tmp_path, kind="tensor").read_items(range(1))
    assert prepare_sample(item).tolist() == [0, 1, 2]
    named = opened([str(tmp_path / "c.md"), str(tmp_path / "*.txt")], kind="text")
    assert [(item.key, item.content) for item in named.read_items(range(2))] == [("c.md", b"c"), ("b.txt", b"b")]
    with pytest.raises(MLScaleError, match="no table to score") as caught:
        opened(tmp_path, kind="table")
    assert caught.value.fix == "input=<a folder of tables, or a table>"


def test_folders_have_images_of_every_format_and_report_what_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.gif", "b.webp", "c.png", "d.bmp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "e.heic").write_bytes(b"x")
    assert len(opened(str(tmp_path))) == 4
    assert "skipped files that do not end as images do: 1, the first: e.heic" in capsys.readouterr().err
    assert len(opened(str(tmp_path / "b.webp"))) == 1


ROWS: list[dict[str, Any]] = [{"a": 1, "b": "x", "c": True}, {"a": None, "b": "7", "c": False}, {"b": None, "a": 2.5}]


def write_json_files(folder: Path, documents: list[Any]) -> list[str]:
    """Write documents in each form of JSON; return the paths."""
    lines = "".join(json.dumps(document) + "\n\n" for document in documents)
    (folder / "rows.jsonl").write_text(lines)
    (folder / "rows.ndjson").write_text("\ufeff" + lines, encoding="utf-8")
    (folder / "rows.JSON").write_text(json.dumps(documents))
    return [str(folder / name) for name in ("rows.jsonl", "rows.ndjson", "rows.JSON")]


def test_json_files_are_rows_as_a_request_has_them(tmp_path: Path) -> None:
    for path in write_json_files(tmp_path, ROWS):
        inputs = open_inputs(path, member=None, key=None, columns=(), kind="table")
        assert isinstance(inputs, TableInputs)
        keys, rows = inputs.read_rows(range(3), ["a", "b", "c"])
        # Every second line of the others is empty.
        lines = [f"line {number} of {Path(path).name}" for number in (1, 3, 5)]
        assert keys == ([f"rows.JSON:{number}" for number in (1, 2, 3)] if path.endswith("JSON") else lines)
        assert rows == [{"c": None, **row} for row in ROWS]
        with pytest.raises(MLScaleError, match="the table has no columns 'd', 'e f'") as caught:
            inputs.read_rows(range(3), ["a", "d", "e f"])
        assert caught.value.why == "its columns are: 'a', 'b', 'c'"


@pytest.mark.parametrize(
    "documents",
    [
        ["good 🐧", "3", "\ud800"],
        [{"text": "good 🐧", "label": "ham"}, {"text": "3"}, {"text": "\ud800", "label": "x"}],
    ],
)
def test_json_files_are_texts_for_a_model_of_texts(tmp_path: Path, documents: list[Any]) -> None:
    for path in write_json_files(tmp_path, documents):
        items = open_inputs(path, member=None, key=None, columns=(), kind="text").read_items(range(3))
        assert [item.content for item in items] == ["good 🐧".encode(), b"3", b"?"]


def test_json_files_name_images_and_hold_features(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")
    for path in write_json_files(tmp_path, [{"path": "a.png", "id": 7}]):
        (item,) = open_inputs(path, member=None, key="id", columns=(), kind="image").read_items(range(1))
        assert (item.key, item.content) == ("7", b"pixels")
    for path in write_json_files(tmp_path, [{"x": 1, "y": 2.5}]):
        (item,) = open_inputs(path, member=None, key=None, columns=("y", "x"), kind="tensor").read_items(range(1))
        assert list(item.content) == [2.5, 1.0]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("a.jsonl", b"[1, 2]\n", "line 1 is neither an object, a row by column, nor a text"),
        ("a.json", b"[3]", "item 1 is neither an object"),
        ("a.json", b"[]", "it holds no rows"),
    ],
)
def test_a_json_file_that_can_not_be_read(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MLScaleError, match="the table can't be read") as caught:
        open_inputs(str(tmp_path / name), member=None, key=None, columns=(), kind="table")
    assert str(caught.value.why).startswith(why)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_table_in_latin1_has_the_line_that_converts_it(tmp_path: Path, name: str) -> None:
    content = "a,b\n1,Größe\n" if name == "rows.csv" else '{"a": 1, "b": "Größe"}\n'
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(MLScaleError, match="the table can't be read") as caught:
        open_inputs(str(tmp_path / name), member=None, key=None, columns=(), kind="table")
    subprocess.run(str(caught.value.fix), shell=True, check=True)
    inputs = open_inputs(str(tmp_path / name.replace(".", "-utf8.")), member=None, key=None, columns=(), kind="table")
    assert isinstance(inputs, TableInputs)
    assert inputs.read_rows(range(1), ["b"])[1] == [{"b": "Größe"}]


@pytest.mark.parametrize(
    ("kind", "name", "fix"),
    [
        ("table", "notes.txt", "input=<a .csv, .tsv, .parquet, .jsonl or .json file>"),
        ("text", "a.png", "input=<texts (.md, .text, .txt), a folder or tar shards of such, or a .csv"),
        ("image", "notes.txt", "input=<images (.jpg, .png, …), a folder or tar shards of such, or a .csv"),
        ("tensor", "x.xlsx", "input=<arrays (.npy), a folder or tar shards of such, or a .csv"),
        ("image", "shards.tar.gz", "input=<images"),
    ],
)
def test_a_file_of_another_kind_is_reported_what_is_taken(tmp_path: Path, kind: str, name: str, fix: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(MLScaleError, match=f"{name} is not a kind of input that the model takes") as caught:
        open_inputs(str(tmp_path / name), member=None, key=None, columns=(), kind=kind)
    assert str(caught.value.fix).startswith(fix)
