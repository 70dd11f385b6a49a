"""Rows of tables: one at a time as all at once, bit by bit; ranges, units, and the reason of each bad row."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlscale.data.encoders.encoder import INPUT
from mlscale.data.encoders.stored_encoder import parse_encoder
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.table_parsing.columns import Column, DataTable
from mlscale.errors import MLScaleError
from tests.unit.data.encoders.random_tables import build_table, draw_row, fit_random


@pytest.fixture
def penguins() -> TableEncoder:
    columns: dict[str, Column] = {"mm": np.array([1.0, np.nan, 3, 8]), "island": ["b", "a", None, "b"]}
    return TableEncoder.fit(DataTable(columns, list("0123")), ["mm", "island"], units={"mm": "mm"}, where="data.train")


@pytest.mark.parametrize("seed", range(8))
def test_one_row_is_bitwise_the_same_row_of_a_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    encoder = fit_random(rng)
    rows = [draw_row(rng, encoder) for _ in range(250)]
    compared = 0
    # One row at a time, too: a column of numbers alone is read as an array, one with a text as texts.
    for part in ([row] for row in rows):
        table = encoder.encode_table(build_table(part, encoder), where="input")
        one = encoder.encode_samples(part)
        assert one.bad.keys() == table.bad.keys()
        if not table.bad and _are_plain(part[0], encoder):
            assert one.tensors[INPUT].tobytes() == table.x.tobytes(), part
            compared += 1
    good = [row for row in rows if not encoder.encode_samples([row]).bad and _are_plain(row, encoder)]
    table = encoder.encode_table(build_table(good, encoder), where="input")
    # A number in a column of categories is written in another way among texts: those rows are compared one by one.
    numbers = np.array([column.type == "number" for column in encoder.columns for _ in column.names])
    together = encoder.encode_samples(good).tensors[INPUT]
    assert together[:, numbers].tobytes() == table.x[:, numbers].tobytes()
    assert compared > 60


def _are_plain(row: dict[str, object], encoder: TableEncoder) -> bool:
    """Whether no value is so far out that float32 has only infinity for it."""
    scaled = [
        (encoder_column.read_value(row[encoder_column.name]) - encoder_column.mean) / encoder_column.std
        for encoder_column in encoder.columns
        if isinstance(encoder_column, NumberColumn)
    ]
    return not any(abs(value) > 3e38 for value in scaled)


def test_ranges_units_and_missing_values_are_part_of_the_schema(penguins: TableEncoder) -> None:
    assert penguins.describe_raw_input() == {
        "type": "table",
        "columns": [
            {
                "name": "mm",
                "type": "number",
                "may_be_missing": True,
                "minimum": 1.0,
                "maximum": 8.0,
                "median": 3.0,
                "unit": "mm",
            },
            {"name": "island", "type": "category", "may_be_missing": True, "categories": ["a", "b"]},
        ],
    }
    assert penguins.inputs[0].to_document() == {"name": "input", "dtype": "float32", "shape": [5]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"island": "a"}, "it lacks the column 'mm' (null for a missing value)"),
        ({"MM": 1, "mm.": 2, "island": "a"}, "is 'mm.' the same?"),
        ({"mm": "wide", "island": "a"}, "mm is 'wide', no number"),
        ({"mm": float("inf"), "island": "a"}, "mm is infinite, not a finite number"),
        ({"mm": [1], "island": "a"}, "mm is a list, not a number"),
        ({"mm": 1, "island": {}}, "island is an object, not a text or a number"),
        ({"mm": "wide", "island": {}}, "mm is"),
    ],
)
def test_the_reason_of_a_bad_row_names_its_column(penguins: TableEncoder, row: dict[str, object], reason: str) -> None:
    encoded = penguins.encode_samples([{"mm": 1, "island": "a"}, row])
    assert list(encoded.bad) == [1]
    assert reason in encoded.bad[1]
    assert encoded.tensors[INPUT][0].any()
    assert not encoded.tensors[INPUT][1].any()


def test_a_row_is_new_memory(penguins: TableEncoder) -> None:
    first = penguins.encode_row({"mm": None, "island": None})
    first[:] = 9
    assert penguins.encode_row({"mm": None, "island": None}).tolist() != first.tolist()


def test_numbers_that_name_categories_are_the_same_however_they_are_written() -> None:
    column = CategoryColumn.fit("zip", np.array([1234.0, 777.0, np.nan]))
    encoder = TableEncoder((column,))
    for value in ("01234", 1234, 1234.0, "1234.0", np.float32(1234), np.int64(1234)):
        assert encoder.encode_row({"zip": value}).tolist() == [0, 1, 0]


def test_the_same_rows_give_the_same_digest_and_other_rows_another() -> None:
    first, again, other = (fit_random(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.digest == again.digest != other.digest
    assert parse_encoder(json.loads(json.dumps(first.to_document())), where="x").digest == first.digest


@pytest.mark.parametrize(("values", "text"), [(("true", "x"), "true"), (("TRUE",), "TRUE"), (("True", "true"), "True")])
def test_a_truth_value_is_the_category_that_training_has(values: tuple[str, ...], text: str) -> None:
    column = CategoryColumn("flag", values, False)
    assert column.read_value(True) == column.read_value(np.True_) == text


@pytest.mark.parametrize("value", [1e308, -1e300, 10**200, "1e308"])
def test_numbers_beyond_float32_are_bad_in_rows_tables_and_packed(penguins: TableEncoder, value: object) -> None:
    row = {"mm": value, "island": "a"}
    reason = f"mm is {float(str(value)):g}, and 1 to 8 in training: float32, in which models compute, does not reach so"
    for encoded in (penguins.encode_samples([row]), penguins.pack_samples([row])):
        assert encoded.bad[0].startswith(reason)
    table = DataTable({"mm": [str(value)], "island": ["a"]}, ["0"])
    assert penguins.encode_table(table, where="data.val").bad[0].startswith(reason)
    low, high = penguins._number_columns[0].limits
    assert np.isfinite(penguins.encode_row({"mm": low, "island": "a"})).all()
    assert np.isfinite(penguins.encode_row({"mm": high, "island": "a"})).all()


def test_a_column_whose_deviation_is_infinite_is_refused() -> None:
    table = DataTable({"far": np.array([1e308, -1e308, 0.0])}, list("012"))
    with pytest.raises(MLScaleError, match="the column 'far' holds numbers that are too large"):
        TableEncoder.fit(table, ["far"], where="data.train")


def test_no_message_leaves_out_the_last_column() -> None:
    """As `57.7%` is no number, and the column would be all that there is."""
    columns: dict[str, Column] = {"share": [f"{n}.5%" for n in range(300)], "x": np.arange(300.0)}
    table = DataTable(columns, list(map(str, range(300))))
    for names, fix in ((["share", "x"], "data.ignore=[share]"), (["share"], "write a column as numbers alone")):
        with pytest.raises(MLScaleError, match="the column 'share' has 300 different texts") as caught:
            TableEncoder.fit(table, names, where="data.train")
        assert caught.value.fix.startswith(fix)


def test_all_absent_columns_of_a_row_are_named(penguins: TableEncoder) -> None:
    (reason,) = penguins.encode_samples([{"other": 1}]).bad.values()
    assert reason == "it lacks the columns 'mm', 'island' (null for a missing value)"
    assert penguins.pack_samples([{"other": 1}]).bad[0] == reason
    table = DataTable({"other": np.array([1.0])}, ["0"])
    with pytest.raises(MLScaleError, match="the table has no columns 'mm', 'island'"):
        penguins.encode_table(table, where="data.val")


def test_a_column_in_another_form_of_unicode_is_named_as_such() -> None:
    trained, sent = "Größe", "Gro\u0308ße"
    encoder = TableEncoder.fit(DataTable({trained: np.array([1.0, 2.0])}, list("01")), [trained], where="data.train")
    (reason,) = encoder.pack_samples([{sent: 1}]).bad.values()
    assert reason.endswith("'Größe' is there in another form of Unicode: write its name in NFC, not NFD")
    with pytest.raises(MLScaleError, match="the table has no column 'Größe'") as caught:
        encoder.encode_table(DataTable({sent: np.array([1.0])}, ["0"]), where="data.val")
    assert "in another form of Unicode" in str(caught.value.why)


def test_a_column_that_can_not_be_typed_is_to_be_renamed() -> None:
    with pytest.raises(MLScaleError) as caught:
        DataTable({"a${b}": np.array([1.0])}, ["0"]).get_column("a${c}", where="data.target")
    assert caught.value.fix == "rename the column 'a${b}' in the file, without ${"
