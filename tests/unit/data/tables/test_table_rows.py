"""Tables: read, encoded by the training rows, and every mistake told by its column."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mlscale.data import BreastCancer, Diabetes, TableFiles
from mlscale.data.table_parsing import table_files
from mlscale.data.table_parsing.columns import DataTable, suggest_number_keys
from mlscale.data.table_parsing.table_files import read_table
from mlscale.data.table_parsing.table_form import TableForm
from mlscale.errors import Exit, MLScaleError, Problems

GOOD = "a,b,c,target\n" + "".join(f"{i},{'xyz'[i % 3]},{i % 2},{'no' if i < 15 else 'yes'}\n" for i in range(30))


def csv(folder: Path, text: str = GOOD, name: str = "a.csv") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def rows(data: TableFiles, split: str) -> tuple[Any, Any]:
    given = data.get_rows(split)
    return given.take_samples(np.arange(len(given)))


def test_numbers_categories_and_a_class(tmp_path: Path) -> None:
    data = TableFiles(csv(tmp_path), "target", val=csv(tmp_path, GOOD, "b.csv"), ignore=["c"])
    facts = data.facts()
    assert (facts.sample, facts.features, facts.class_names) == ((4,), 4, ("no", "yes"))
    assert data.feature_names == ("a", "b = x", "b = y", "b = z")
    x, y = rows(data, "train")
    assert x[:, 0] == pytest.approx((np.arange(30) - 14.5) / np.arange(30).std())
    assert x[4, 1:].tolist() == [0, 1, 0]
    assert y.tolist() == [0] * 15 + [1] * 15


def test_missing_values_become_the_median_and_are_reported(tmp_path: Path) -> None:
    text = "a,b,target\n1,x,0\nNA,,1\n3,y,0\n8,x,1\n"
    data = TableFiles(csv(tmp_path, text), "target", val=csv(tmp_path, "b,target,a\nnew,0,\n,1,5\n", "b.csv"))
    assert data.facts().features == 5
    assert data.feature_names == ("a", "a is missing", "b is missing", "b = x", "b = y")
    filled = np.array([1, 3, 3, 8])
    x, _ = rows(data, "train")
    assert x[:, 0] == pytest.approx((filled - filled.mean()) / filled.std())
    assert x[:, 1].tolist() == [0, 1, 0, 0]
    x, _ = rows(data, "val")
    assert x[0, 1:].tolist() == [1, 0, 0, 0]  # a category that training does not have: all zeros
    assert x[1, 1:].tolist() == [0, 1, 0, 0]
    data.teardown("fit")
    assert data.counted == {"data/unknown_categories": 1}


def test_other_splits_are_read_as_training_is(tmp_path: Path) -> None:
    """A column of texts stays one where another file happens to hold nothing but numbers or truth values."""
    train = csv(tmp_path, "code,vip,y\n01,True,true\nx,False,false\n7.0,maybe,both\n")
    val = csv(tmp_path, "code,vip,y\n01,False,false\n7.0,True,true\n", "b.csv")
    data = TableFiles(train, "y", val=val, test=val, categorical=["code"])
    assert data.facts().class_names == ("both", "false", "true")
    for split in ("val", "test"):
        x, y = rows(data, split)
        assert x.tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]]
        assert y.tolist() == [1, 2]
    data.teardown("fit")
    assert data.counted == {}


def test_numbers_that_name_categories_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    text = "zip,y\n01234,a\n777.0,b\n,a\n"
    data = TableFiles(csv(tmp_path, text), "y", val=csv(tmp_path, text, "b.csv"), categorical=["zip"])
    table = DataTable(
        {"zip": ["1234", "0777", None, "x"]}, ["a", "b", "c", "d"]
    )  # as `mlscale predict` reads a CSV file
    assert data.encoder().encode_table(table, where="input").x.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]


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
        "'data.missing=[?]'",
        "data.missing=[-]",
    ]
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
    assert "the column '' is an index that pandas has written" in capsys.readouterr().err


def test_units_are_kept_with_the_columns(tmp_path: Path) -> None:
    data = TableFiles(csv(tmp_path), "target", val_fraction=0.5, units={"a": "mm"})
    assert [column.get("unit") for column in data.encoder().describe_raw_input()["columns"]] == ["mm", None, None]
    with pytest.raises(MLScaleError, match="no column 'aa'") as caught:
        TableFiles(csv(tmp_path), "target", units={"aa": "mm"}).facts()
    assert (caught.value.where, caught.value.fix) == ("data.units", "'data.units={a: <its unit>}'")


def test_numbers_to_predict(tmp_path: Path) -> None:
    text = "a,u,v\n" + "".join(f"{i},{i * 2},{7}\n" for i in range(40))
    data = TableFiles(csv(tmp_path, text), ["u", "v"], target_type="number", val_fraction=0.3)
    facts = data.facts()
    assert (facts.targets, facts.num_classes) == (2, None)
    x, y = rows(data, "train")
    assert y.dtype == np.float32
    assert y.shape == (facts.train_samples, 2)
    assert facts.target_mean == pytest.approx(y.mean(0), rel=1e-6)
    assert facts.target_std == pytest.approx((y[:, 0].std(), 1.0), rel=1e-6)
    assert len(x) + len(rows(data, "val")[0]) == 40


@pytest.mark.parametrize(
    ("text", "classes"), [("0 1 1 2", 3), ("True False True False", 2), ("1 2 1 2", None), ("1.5 2 1 2", None)]
)
def test_what_auto_takes_for_classes(tmp_path: Path, text: str, classes: int | None) -> None:
    lines = "".join(f"{i},{value}\n" for i, value in enumerate(text.split()))
    path = csv(tmp_path, "a,target\n" + lines)
    assert TableFiles(path, "target", val=path).facts().num_classes == classes


def test_equal_rows_are_held_out_together(tmp_path: Path) -> None:
    text = "a,target\n" + "".join(f"{i % 20},{i % 2}\n" for i in range(100))
    data = TableFiles(csv(tmp_path, text), "target")
    sides = [set(rows(data, split)[0][:, 0].tolist()) for split in ("train", "val")]
    assert sides[1]
    assert not sides[0] & sides[1]


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


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a,b\n1,2\n3\n", "cannot be read as CSV"),
        ("", "cannot be read as CSV"),
        ("a,a\n1,2\n", "two columns 'a'"),
        ("a,b\n", "no rows"),
        ("a,b\n1,\xff\n", "cannot be read as CSV"),
    ],
)
def test_a_malformed_file_is_reported_by_its_name(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(MLScaleError, match=what):
        read_table(str(path), where="data.train")


def test_all_mistyped_columns_are_reported_at_once(tmp_path: Path) -> None:
    path = csv(tmp_path)
    with pytest.raises(MLScaleError) as caught:
        TableFiles(path, "targt", val=path, ignore=["d"], units={"e": "m"}).facts()
    assert [name in str(caught.value) for name in ("'targt'", "'d'", "'e'")] == [True, True, True]


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


def test_columns_that_are_no_features(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"a":{i},"b":[{i}],"target":0}}\n' for i in range(5)))
    with pytest.raises(MLScaleError, match="the column 'b' holds list") as caught:
        TableFiles(str(path), "target", val=str(path)).facts()
    assert "b_1, b_2" in caught.value.fix
    assert "data.ignore=[b]" in caught.value.fix


def test_a_column_that_cannot_be_read_can_be_left_out(tmp_path: Path) -> None:
    """Dates of Parquet and JSON Lines, which have a type of their own."""
    days = pa.array([i * 86_400 for i in range(30)], pa.timestamp("s"))
    table = pa.table({"when": days, "a": np.arange(30.0), "target": np.arange(30) % 2})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(MLScaleError, match=r"the column 'when' holds timestamp") as caught:
        TableFiles(str(tmp_path / "a.parquet"), "target").facts()
    assert caught.value.fix.startswith("data.ignore=[when], which leaves it out")
    data = TableFiles(str(tmp_path / "a.parquet"), "target", ignore=["when"])
    assert data.facts().features == 1


DATES = ["2024-03-0{}", "2024-03-0{}T12:30:00Z", "2024-03-0{} 12:30:00.250", "2024-03-0{}T12:30:00+01:00"]


@pytest.mark.parametrize("form", DATES)
def test_dates_are_refused_unless_they_are_named_as_categories(tmp_path: Path, form: str) -> None:
    lines = [f'{i},"{form.format(i % 3 + 1)}",{i % 2}\n' for i in range(40)]
    path = csv(tmp_path, "a,when,target\n" + "".join(lines))
    with pytest.raises(MLScaleError, match="the column 'when' holds dates or times") as caught:
        TableFiles(path, "target").facts()
    assert "data.ignore=[when]" in caught.value.fix
    assert "data.categorical=[when]" in caught.value.fix
    assert TableFiles(path, "target", ignore=["when"]).facts().features == 1
    assert TableFiles(path, "target", categorical=["when"]).facts().features == 4


@pytest.mark.parametrize(
    "form", ["v1.{}", "12{}", "1.2.{}", "route 1/{}", "5-{}", "may{}", "A-2024-0{}", "10:{}0 to 11:00"]
)
def test_what_only_looks_like_a_date_is_a_category(tmp_path: Path, form: str) -> None:
    lines = [f"{i},{form.format(i % 3 + 1)},{i % 2}\n" for i in range(40)]
    assert TableFiles(csv(tmp_path, "a,b,target\n" + "".join(lines)), "target").facts().features in (2, 4)


def test_mistakes_in_columns_are_reported_together(tmp_path: Path) -> None:
    text = "id,out,empty,x,target\n" + "".join(f"n{i},1,,{i},{i % 2}\n" for i in range(40))
    with pytest.raises(Problems) as caught:
        TableFiles(csv(tmp_path, text), "target", ignore=["out"]).facts()
    reported = str(caught.value)
    assert "'id' has" in reported
    assert reported.count("data.ignore=[out,id,empty]") == 2
    assert "'empty' holds no value" in reported


@pytest.mark.parametrize(
    ("settings", "what", "fix"),
    [
        ({"target": "tarket"}, "no column 'tarket'", "data.target=target"),
        ({"target": "target", "ignore": ["d"]}, "no column 'd'", "data.ignore=["),
        ({"target": "a", "target_type": "class", "ignore": ["target"]}, "", ""),
    ],
)
def test_columns_by_name(tmp_path: Path, settings: dict[str, Any], what: str, fix: str) -> None:
    data = TableFiles(csv(tmp_path), **settings, val=csv(tmp_path, GOOD, "b.csv"))
    if not what:
        assert data.facts().num_classes == 30
        return
    with pytest.raises(MLScaleError, match=what) as caught:
        data.facts()
    assert fix in caught.value.fix


@pytest.mark.parametrize("name", ["a", "target"])
def test_a_column_that_another_split_lacks(tmp_path: Path, name: str) -> None:
    heading, _, lines = GOOD.partition("\n")
    names = ["x" if each == name else each for each in heading.split(",")]
    other = csv(tmp_path, ",".join(names) + "\n" + lines, "b.csv")
    with pytest.raises(MLScaleError, match=f"no column '{name}'") as caught:
        TableFiles(csv(tmp_path), "target", val=other).facts()
    assert caught.value.fix == f"add the column '{name}', which the training rows have"


def test_rows_with_mistakes(tmp_path: Path) -> None:
    text = GOOD.replace("\n3,", "\n3 or so,").replace("29,z,1,yes", "29,z,1,")
    settings: dict[str, Any] = {"target": "target", "val": csv(tmp_path, GOOD, "b.csv"), "batch_size": 30}
    with pytest.raises(MLScaleError, match=r"line 5 of a.csv cannot be used") as caught:
        TableFiles(csv(tmp_path, text), **settings).facts()
    assert caught.value.why == "a is '3 or so', no number; 2 of 30 samples are like this"
    data = TableFiles(csv(tmp_path, text), **settings, on_bad_sample="skip")
    (batch,) = data.train_dataloader()
    assert batch["weight"].sum() == 28


def test_other_columns_in_another_file(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match=r"b.csv has other columns than a.csv"):
        read_table([csv(tmp_path), csv(tmp_path, "a,b\n1,2\n", "b.csv")], where="data.train")


def test_pyarrow_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(table_files, "find_spec", lambda name: None if name == "pyarrow" else found(name))
    with pytest.raises(MLScaleError, match="pyarrow is not installed") as caught:
        read_table(csv(tmp_path), where="data.train")
    assert caught.value.exit == Exit.ENVIRONMENT
    assert caught.value.fix == "pip install 'mlscale[table]'"


def test_bundled_tables() -> None:
    facts = BreastCancer().facts()
    assert (facts.train_samples, facts.val_samples, facts.features) == (455, 114, 30)
    assert facts.class_names == ("benign", "malignant")
    facts = Diabetes().facts()
    assert (facts.train_samples, facts.val_samples, facts.features, facts.targets) == (353, 89, 10, 1)
    assert facts.target_mean == pytest.approx((151.6,), abs=0.1)
    assert Diabetes(seed=3).facts() == facts


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
    with pytest.raises(MLScaleError, match=r"'note' has \d+ different texts") as caught:
        TableFiles(str(tmp_path / "a.csv"), "y").facts()
    assert caught.value.fix.startswith("data.ignore=[note], which leaves it out")
