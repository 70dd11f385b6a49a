"""Which rows of a table are held out, by each rule."""

import csv
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mlscale.data import TableFiles, TextTable
from mlscale.errors import MLScaleError

SEEDS = (3, 20261129)


def write(path: Path, rows: Sequence[Sequence[object]], names: Sequence[str]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return str(path)


def make_rows(seed: int, count: int = 400) -> list[list[object]]:
    draw = np.random.default_rng(seed)
    days = np.datetime64("2026-01-01") + draw.permutation(count).astype("timedelta64[D]")
    return [
        [
            round(float(draw.normal()), 6), f"p{draw.integers(40)}", str(days[row]),
            "rare" if row % 20 == 0 else "usual",
        ]
        for row in range(count)
    ]  # fmt: skip


NAMES = ("x", "patient", "day", "target")


def get_column(data: TableFiles, split: str, name: str) -> list[object]:
    return list(data.get_rows(split).table.get_column(name, where=""))  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_stay_on_one_side_wherever_other_rows_are(tmp_path: Path, seed: int) -> None:
    rows = make_rows(seed)
    data = TableFiles(write(tmp_path / "t.csv", rows, NAMES), "target", group_on="patient", ignore=["day"])
    train, val = (set(get_column(data, split, "patient")) for split in ("train", "val"))
    assert train
    assert val
    assert not train & val
    assert data.encoder().feature_names == ("x",)
    # Half of the rows: the same groups are held out.
    half = TableFiles(write(tmp_path / "h.csv", rows[::2], NAMES), "target", group_on="patient", ignore=["day"])
    assert set(get_column(half, "val", "patient")) <= val


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_without_a_group_are_groups_of_their_own(tmp_path: Path, seed: int) -> None:
    rows = [[x, "", day, target] for x, _, day, target in make_rows(seed)]
    rows[0][1] = "p1"
    data = TableFiles(write(tmp_path / "t.csv", rows, NAMES), "target", group_on="patient", ignore=["day"])
    assert 40 <= len(data.get_rows("val")) <= 120


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["csv", "parquet", "seconds"])
def test_the_latest_rows_are_held_out(tmp_path: Path, seed: int, kind: str) -> None:
    rows = make_rows(seed)
    path = write(tmp_path / "t.csv", rows, NAMES)
    if kind != "csv":
        import pyarrow as pa
        from pyarrow import parquet

        x, patient, day, target = zip(*rows, strict=True)
        moments = np.array(day, "datetime64[D]")
        seconds = moments.astype("datetime64[s]").astype(np.int64)
        times = pa.array(moments) if kind == "parquet" else pa.array(seconds)
        table = pa.table({"x": x, "patient": patient, "day": times, "target": target})
        path = str(tmp_path / "t.parquet")
        parquet.write_table(table, path)
    data = TableFiles(path, "target", time_on="day", ignore=["patient"], val_fraction=0.25)
    held = {data.get_rows("val").get_key(row) for row in range(len(data.get_rows("val")))}
    days = [str(row[2]) for row in rows]
    name = "t.parquet:{}" if path.endswith("parquet") else "line {} of t.csv"
    first = 1 if path.endswith("parquet") else 2
    assert held == {name.format(row + first) for row, day in enumerate(days) if day >= sorted(days)[300]}
    assert data.encoder().feature_names == ("x",)


@pytest.mark.parametrize("seed", SEEDS)
def test_each_class_has_its_share_and_equal_rows_stay_together(tmp_path: Path, seed: int) -> None:
    rows = [row[:1] + row[3:] for row in make_rows(seed)]
    path = write(tmp_path / "t.csv", rows + rows[:50], ("x", "target"))
    data = TableFiles(path, "target", stratify=True, val_fraction=0.2)
    counts = {split: Counter(get_column(data, split, "target")) for split in ("train", "val")}
    assert counts["val"]["rare"] / (counts["val"] + counts["train"])["rare"] == pytest.approx(0.2, abs=0.08)
    assert counts["val"]["usual"] / (counts["val"] + counts["train"])["usual"] == pytest.approx(0.2, abs=0.03)
    assert not set(get_column(data, "train", "x")) & set(get_column(data, "val", "x"))


def test_texts_are_held_out_by_the_same_rules(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    rows = [
        [f"text {row} {draw.integers(1000)}", "ab"[row % 2], f"a{draw.integers(30)}", f"2026-11-{1 + row % 28:02}"]
        for row in range(300)
    ]
    path = write(tmp_path / "t.csv", rows, ("text", "label", "author", "day"))
    author = {f"line {row + 2} of t.csv": str(rows[row][2]) for row in range(300)}
    day = {f"line {row + 2} of t.csv": str(rows[row][3]) for row in range(300)}
    grouped, timed = TextTable(path, group_on="author"), TextTable(path, time_on="day")

    def name_all(data: TextTable, names: dict[str, str], split: str) -> set[str]:
        split_rows = data.get_rows(split)
        return {names[split_rows.get_key(row)] for row in range(len(split_rows))}

    assert not name_all(grouped, author, "train") & name_all(grouped, author, "val")
    assert max(name_all(timed, day, "train")) < min(name_all(timed, day, "val"))


@pytest.mark.parametrize("kind", [TableFiles, TextTable])
def test_splits_that_are_given_are_checked_for_groups_and_for_times(tmp_path: Path, kind: type) -> None:
    names = ("text", "label", "author", "day", "x")
    rows = [[f"text {row}", "ab"[row % 2], f"a{row % 30}", f"2026-{1 + row // 28:02}-01", row] for row in range(280)]
    val = [
        [f"new {row}", "ab"[row % 2], f"{'a' if row < 3 else 'b'}{row}", f"20{27 - (row < 7)}-01-01", row]
        for row in range(40)
    ]
    paths = write(tmp_path / "t.csv", rows, names), write(tmp_path / "v.csv", val, names)
    settings = {"ignore": ["text"]} if kind is TableFiles else {}
    target = {"target": "label"} if kind is TableFiles else {}
    data = kind(paths[0], val=paths[1], group_on="author", time_on="day", **settings, **target)
    data.facts()
    found = "\n".join(data.split_leaks)
    assert "3 of 40 validation samples are of groups that training has, too, by 'author': 3 groups" in found
    assert "7 of 40 validation samples are not later than the last training sample, by 'day'" in found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_on": "patient", "time_on": "day"}, "by data.group_on and by data.time_on at once"),
        ({"stratify": True, "val": "t.csv"}, "data.stratify has no effect with data.val"),
        ({"group_on": "patents"}, "the table has no column 'patents'"),
        ({"time_on": "patient"}, "400 of 400 rows have no time that can be read"),
        ({"group_on": "same"}, "0.2 of 400 rows leave one side empty"),
        ({"time_on": "day", "val_fraction": 1.5}, "1.5 of 400 rows leave one side empty"),
        ({"target": "x", "stratify": True}, "rows without classes can't be stratified"),
    ],
)
def test_what_can_not_be_held_out_is_explained(
    settings: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", [[*row, "one"] for row in make_rows(1)], (*NAMES, "same"))
    arguments = {"train": "t.csv", "target": "target", "ignore": ["patient", "day"], **settings}
    with pytest.raises(MLScaleError, match=message) as caught:
        TableFiles(**arguments).facts()  # type: ignore[arg-type]
    assert caught.value.where
    assert caught.value.fix


def test_a_class_of_one_row_that_was_held_out_names_stratify(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    rows = [[float(draw.normal()), f"text {row}", "ab"[row % 2]] for row in range(60)]
    path = write(tmp_path / "t.csv", rows, names := ("x", "text", "label"))
    sources = (
        (lambda **settings: TableFiles(path, target="label", ignore=["text"], **settings)),
        partial(TextTable, path),
    )
    for build in sources:
        write(tmp_path / "t.csv", rows, names)
        # A row that the hash of its values holds out gets a class of its own.
        held = int(build().get_rows("val").get_key(0).split()[1]) - 2
        write(tmp_path / "t.csv", [[*row[:2], "only" if at == held else row[2]] for at, row in enumerate(rows)], names)
        with pytest.raises(MLScaleError, match="a label that the training data does not have") as caught:
            build().facts()
        assert caught.value.fix.startswith("data.stratify=true, ")
        assert build(stratify=True).facts().num_classes == 3
