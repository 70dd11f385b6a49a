"""Tables as they are written: separators, decimals, thousands, encodings, missing values, and the kinds of files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mlscale.data import TableFiles
from mlscale.data.table_parsing import table_files
from mlscale.data.table_parsing.columns import Column, combine_number_keys, suggest_number_keys
from mlscale.data.table_parsing.table_files import read_table
from mlscale.data.table_parsing.table_form import TableForm
from mlscale.errors import MLScaleError, Problems
from tests.unit.data.tables.test_table_rows import GOOD, csv, rows


def _numbers(text: str, count: int = 40) -> list[str]:
    return [text if row % 10 == 3 else str(row / 4) for row in range(count)]


def _two_columns(tmp_path: Path, first: list[str], second: list[str], encoding: str = "utf-8") -> str:
    lines = [f'"{a}","{b}",{"uv"[row % 2]}' for row, (a, b) in enumerate(zip(first, second, strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(["größe,b,y", *lines, ""]), encoding=encoding)
    return str(tmp_path / "t.csv")


def test_texts_for_missing_values_are_named_and_taken_as_such(tmp_path: Path) -> None:
    path = _two_columns(tmp_path, _numbers("?"), _numbers("-"))
    with pytest.raises(Problems) as caught:
        TableFiles(path, "y").facts()
    assert [problem.fix.split("\n")[0] for problem in caught.value.problems] == [
        "'data.missing=[?,-]'",  # for both: of two settings of one key the last one counts
        "'data.missing=[?,-]'",
    ]
    with pytest.raises(MLScaleError) as caught_next:
        TableFiles(path, "y", missing=["?"]).facts()
    assert caught_next.value.fix.split("\n")[0] == "'data.missing=[?,-]'"
    data = TableFiles(path, "y", missing=["?", "-"])
    assert [column["type"] for column in data.encoder().describe_raw_input()["columns"]] == ["number", "number"]


def test_a_single_text_among_numbers_is_answered_by_the_same_key(tmp_path: Path) -> None:
    path = _two_columns(tmp_path, ["?", *_numbers("1", 39)], _numbers("2"))
    with pytest.raises(MLScaleError, match=r"is '\?', no number") as caught:
        TableFiles(path, "y", val=path).facts()
    assert caught.value.fix.startswith("'data.missing=[?]'\n")
    assert TableFiles(path, "y", val=path, missing=["?"]).facts().features == 3


@pytest.mark.parametrize(("mark", "typed"), [(",", "\"data.thousands=','\""), ("'", "data.thousands")])
def test_divided_thousands_are_named_and_read(tmp_path: Path, mark: str, typed: str) -> None:
    prices = [f"{1000 + 37 * row:,}.5".replace(",", mark) for row in range(40)]
    path = _two_columns(tmp_path, prices, _numbers("2"))
    with pytest.raises(MLScaleError, match="holds numbers and other texts") as caught:
        TableFiles(path, "y", val=path).facts()
    assert typed in caught.value.fix
    with pytest.raises(MLScaleError, match="holds numbers and other texts"):
        TableFiles(path, "größe", val=path).facts()
    data = TableFiles(path, "größe", val=path, thousands=mark)
    assert rows(data, "val")[1].ravel().tolist()[:2] == [1000.5, 1037.5]


def test_the_encoding_is_named_and_read(tmp_path: Path) -> None:
    path = _two_columns(tmp_path, _numbers("1"), _numbers("2"), "cp1252")
    with pytest.raises(MLScaleError, match="cannot be read as CSV") as caught:
        TableFiles(path, "y", val=path).facts()
    assert caught.value.fix == "data.encoding=cp1252"
    columns = TableFiles(path, "y", val=path, encoding="cp1252").encoder().describe_raw_input()["columns"]
    assert [column["name"] for column in columns] == ["größe", "b"]


def test_an_index_of_pandas_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{row},{row % 7},{'uv'[row % 2]}" for row in range(40)]
    (tmp_path / "i.csv").write_text("\n".join([",a,y", *lines, ""]))
    TableFiles(str(tmp_path / "i.csv"), "y").facts()
    assert "the column '' is an index, as pandas and R write it" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_every_kind_of_file_holds_the_same(tmp_path: Path, kind: str) -> None:
    table = pa.table({"a": [1.0, 2.5, None], "b": ["x", None, "z"], "t": [True, False, True]})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pa.parquet.write_table(table, path)
    elif kind == "jsonl":
        path.write_text('{"a":1,"b":"x","t":true}\n{"a":2.5,"t":false}\n{"b":"z","t":true}\n')
    else:
        path.write_text("a,b,t\n1,x,true\n2.5,,false\n,z,true\n".replace(",", "," if kind == "csv" else "\t"))
    read = read_table(str(path), where="data.train")
    assert np.array_equal(np.array(read.columns["a"]), [1, 2.5, np.nan], equal_nan=True)
    assert read.columns["b"] == ["x", None, "z"]
    assert np.array(read.columns["t"]).tolist() == [1, 0, 1]
    lines = {"parquet": "a.parquet:{}", "jsonl": "line {} of a.jsonl"}.get(kind, f"line {{}} of a.{kind}")
    assert list(read.keys) == [lines.format(row + kind.endswith("sv")) for row in (1, 2, 3)]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", ",")])
def test_columns_that_are_divided_otherwise(tmp_path: Path, name: str, mark: str) -> None:
    given = read_table(csv(tmp_path, GOOD.replace(",", mark), name), where="data.train")
    np.testing.assert_equal(given.columns, read_table(csv(tmp_path, GOOD, "b.csv"), where="data.train").columns)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a;b, bar;target\n1;2;x\n3;4;y\n", {"a": [1, 3], "b, bar": [2, 4]}),  # a comma in the heading
        ("a;b;target\n1,5;-2,5;x\n3;;y\n", {"a": [1.5, 3], "b": [-2.5, np.nan]}),  # decimal commas
        ("a;b;target\n1,5;5.354;x\n3;1.606.356;y\n", {"a": [1.5, 3], "b": [5354, 1606356]}),  # points of thousands
        ("a;b;target\n1,2,3;2;x\n1,5;4;y\n", {"a": ["1,2,3", "1.5"], "b": [2, 4]}),  # lists
    ],
)
def test_decimal_commas(tmp_path: Path, text: str, columns: dict[str, list[float | str]]) -> None:
    given = read_table(csv(tmp_path, text), where="data.train", form=TableForm(decimal=",")).columns
    np.testing.assert_equal({name: list(given[name]) for name in columns}, columns)


def test_a_separator_that_the_heading_does_not_show(tmp_path: Path) -> None:
    path = csv(tmp_path, "a, in mm;b, in mm;target\n1;2;x\n3;4;y\n")
    form = TableForm(separator=";")
    assert list(read_table(path, where="data.train", form=form).columns) == ["a, in mm", "b, in mm", "target"]
    with pytest.raises(MLScaleError, match=r"data\.separator is ';;'"):
        TableFiles(path, "target", separator=";;")


def test_leading_zeros_are_those_of_codes(tmp_path: Path) -> None:
    lines = "".join(f"0{1000 + i % 3},{i:04}.5,{i},{'ab'[i % 2]}\n" for i in range(30))
    data = TableFiles(csv(tmp_path, f"zip,b,c,target\n{lines}"), "target")
    data.facts()
    assert data.feature_names == ("zip = 01000", "zip = 01001", "zip = 01002", "b", "c")
    lines = "".join(f"{i:04},{'ab'[i % 2]}\n" for i in range(30))
    with pytest.raises(MLScaleError, match="22 different texts in 22 rows") as caught:
        TableFiles(csv(tmp_path, f"zip,target\n{lines}"), "target").facts()
    assert "leading zeros" in caught.value.why


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.csv", "a,b\n1,2\n3,4\n", [2, 3]),
        ("a.csv", "a,b\r\n1,2\r\n3,4", [2, 3]),
        ("a.csv", "\ufeffa;b\n\n1;2\n\n3;4\n\n", [3, 5]),
        ("a.csv", 'a,"b\nc"\n1,"x\n\ny"\n3,4\n', [3, 6]),
        ("a.jsonl", '{"a": 1}\n\n{"a": 2}\n', [1, 3]),
    ],
)
def test_rows_are_named_by_the_line_of_an_editor(tmp_path: Path, name: str, text: str, lines: list[int]) -> None:
    assert read_table(csv(tmp_path, text, name), where="data.train").keys == [f"line {at} of {name}" for at in lines]


@pytest.mark.parametrize("text", ["a,target\nx;y;z,2\n;,4\n", "a;b,target\nx;y,2\nz,4\n", "a,b,c\n1,2,3|4\n"])
def test_semicolons_in_values_divide_no_columns(tmp_path: Path, text: str) -> None:
    assert read_table(csv(tmp_path, text), where="data.train").keys


@pytest.mark.parametrize(
    ("name", "content"), [("a.parquet", b"PAR1 no"), ("a.jsonl", b'{"a": [1'), ("a.jsonl", b"7\n")]
)
def test_so_is_another_kind(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MLScaleError, match="cannot be read as"):
        read_table(str(tmp_path / name), where="data.train")


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa.parquet.write_table(pa.table({"a": np.zeros(100_000)}), tmp_path / "a.parquet")
    monkeypatch.setattr(table_files, "MOST_BYTES", 20_000)
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    with pytest.raises(MLScaleError, match=r"a.parquet, unpacked, of [\d,]+ bytes are more than 20,000"):
        read_table(str(tmp_path / "a.parquet"), where="data.train")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_file_in_latin1_has_the_line_that_converts_it(tmp_path: Path, name: str) -> None:
    content = "a,b\nGröße,1\n" if name == "rows.csv" else '{"a": "Größe", "b": 1}\n'
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(MLScaleError, match=f"{name} cannot be read as") as caught:
        read_table(str(tmp_path / name), where="data.train")
    subprocess.run(str(caught.value.fix), shell=True, check=True)
    assert read_table(str(tmp_path / name.replace(".", "-utf8.")), where="data.train").columns["a"] == ["Größe"]


def test_only_a_column_that_no_key_repairs_is_to_be_left_out(tmp_path: Path) -> None:
    rows = [f'"1,{100 + i}.5",2026-01-{1 + i % 28:02}T{i % 24:02}:{i % 60:02},{i % 2}' for i in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(["price,when,target", *rows]))
    with pytest.raises(MLScaleError) as caught:
        TableFiles(str(tmp_path / "a.csv"), "target", val=str(tmp_path / "a.csv")).facts()
    assert "data.thousands=','" in str(caught.value)
    assert "data.ignore=[when], which leaves it out" in str(caught.value)


def test_numbers_that_both_notations_have_are_answered_by_both_keys() -> None:
    assert suggest_number_keys(["3,942", "1,204", "7,001"]) == "\"data.thousands=','\"\n\"data.decimal=','\""
    assert suggest_number_keys(["3,942", "1,204", "7,0"]) == "\"data.decimal=','\""
    assert suggest_number_keys(["3,942", "1,204", "7,000.5"]) == "\"data.thousands=','\""


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (np.array([1.5, np.nan, 2.0]), "thousands"),
        (["1.5", None, "low"], "thousands"),
        (["1,25", "2,5", "3,75"], "decimal"),
        (["a", None, "b"], None),
    ],
)
def test_what_commas_are_another_column_shows(other: Column, key: str | None) -> None:
    columns: dict[str, Column] = {"open": ["3,942", "1,204", "7,001"], "other": other}
    alone = {name: suggest_number_keys(columns[name]) for name in columns if isinstance(columns[name], list)}
    found = combine_number_keys(alone, columns, ())["open"] or ""
    assert found == (f"\"data.{key}=','\"" if key else alone["open"])


def test_the_encoding_of_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\tb\ttarget\n" + "1\t2\t0\n3\t4\t1\n" * 20, encoding="utf-16")
    with pytest.raises(MLScaleError) as caught:
        TableFiles(str(tmp_path / "a.csv"), "target", val=str(tmp_path / "a.csv")).facts()
    assert "data.encoding=utf-16" in str(caught.value)


def test_free_texts_among_numbers_are_not_offered_as_missing_values(tmp_path: Path) -> None:
    texts = [f"was late by {row % 43} days" if row % 3 == 0 else str(row % 20) for row in range(200)]
    rows = [f"{row},{text},{row % 2}" for row, text in enumerate(texts)]
    (tmp_path / "a.csv").write_text("\n".join(["x,note,y", *rows]))
    with pytest.raises(MLScaleError, match="'note' holds numbers and other texts") as caught:
        TableFiles(str(tmp_path / "a.csv"), "y").facts()
    assert caught.value.fix == (
        "data.categorical=[note], which takes all of them for categories\ndata.ignore=[note], which leaves it out"
    )
    with pytest.raises(MLScaleError, match="'note' holds numbers and other texts") as caught:
        TableFiles(str(tmp_path / "a.csv"), "note").facts()
    assert caught.value.fix == "data.target_type=class, if they are names of classes"
    assert TableFiles(str(tmp_path / "a.csv"), "y", ignore=["note"]).facts().features == 1
    features = TableFiles(str(tmp_path / "a.csv"), "y", categorical=["note"]).facts().features
    assert features is not None
    assert features > 50
    rows = [f"{row},{text if row % 3 == 0 else row},{row % 2}" for row, text in enumerate(texts)]
    (tmp_path / "a.csv").write_text("\n".join(["x,note,y", *rows]))  # so many that they can't be categories, either
    with pytest.raises(MLScaleError, match=r"'note' holds numbers and other texts") as caught:
        TableFiles(str(tmp_path / "a.csv"), "y").facts()
    assert caught.value.fix == "write it as numbers alone; or data.ignore=[note], which leaves it out"
