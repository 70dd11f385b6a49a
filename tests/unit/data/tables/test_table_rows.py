"""Tables: read, encoded by the training rows, and every mistake told by its column."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mlscale.data import BreastCancer, Diabetes, TableFiles
from mlscale.data.table_parsing import table_files
from mlscale.data.table_parsing.columns import DataTable
from mlscale.data.table_parsing.table_files import read_table
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
