"""Missing values: each form of one gives bitwise the same features from a file of any format and from a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from mlscale.data.encoders.encoder import INPUT
from mlscale.data.encoders.stored_encoder import parse_encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.table_parsing.columns import MISSING_TEXTS, DataTable
from mlscale.data.table_parsing.table_files import read_table
from mlscale.data.tables.table_data import TableFiles
from mlscale.predict.inputs import open_inputs

NAMES = ("mm", "island", "zip")


@pytest.fixture(params=["gaps", "no gaps"])
def encoder(request: pytest.FixtureRequest) -> TableEncoder:
    """Return an encoder of a number, a text and numbers that are names; trained with missing values, and without."""
    gap = request.param == "gaps"
    table = DataTable(
        {
            "mm": np.array([1.0, np.nan if gap else 2.0, 3, 8]),
            "island": ["b", "a", None if gap else "a", "b"],
            "zip": np.array([7.0, 8, 8, np.nan if gap else 7]),
        },
        list("0123"),
    )
    return TableEncoder.fit(table, NAMES, ["zip"], where="data.train")


def encode_file(encoder: TableEncoder, path: Path) -> bytes:
    encoded = encoder.encode_table(read_table(str(path), where="data.train"), where="data.train")
    assert not encoded.bad
    return encoded.x[:1].tobytes()


def test_the_texts_are_those_of_the_reader_of_csv_files() -> None:
    assert set(csv.ConvertOptions().null_values) == MISSING_TEXTS


@pytest.mark.parametrize("text", ["3,14", "1'234", "#WERT!", "abc"])
def test_a_text_that_is_no_number_is_refused(encoder: TableEncoder, text: str) -> None:
    assert encoder.pack_samples([{"mm": text, "island": "a", "zip": 7}]).bad[0] == f"mm is {text!r}, no number"


@pytest.mark.parametrize("form", ["null", "NaN", *sorted(map(json.dumps, MISSING_TEXTS))])
def test_each_form_is_the_same_in_files_and_in_requests(encoder: TableEncoder, tmp_path: Path, form: str) -> None:
    value = json.loads(form)
    row = dict.fromkeys(NAMES, value)
    expected = encoder.encode_row(dict.fromkeys(NAMES)).tobytes()
    assert encoder.encode_row(row).tobytes() == expected
    for count in (1, 40):  # by a row, and by a column
        packed = encoder.pack_samples([row] * count)
        assert not packed.bad
        assert encoder.unpack_samples(packed.tensors)[INPUT][-1].tobytes() == expected
    # A second row, so that the columns keep their types.
    text = value if isinstance(value, str) else ""
    lines = ",".join(NAMES) + "\n" + ",".join([text] * 3) + "\n1,a,7\n"
    (tmp_path / "rows.csv").write_text(lines)
    assert encode_file(encoder, tmp_path / "rows.csv") == expected
    (tmp_path / "quoted.csv").write_text(lines.replace(text, f'"{text}"') if text else lines)
    assert encode_file(encoder, tmp_path / "quoted.csv") == expected
    given = value if isinstance(value, str) else None
    parquet.write_table(pa.table({name: pa.array([given, "7"], pa.string()) for name in NAMES}), tmp_path / "r.parquet")
    assert encode_file(encoder, tmp_path / "r.parquet") == expected
    documents = [dict.fromkeys(NAMES, given), dict.fromkeys(NAMES, "7")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    assert encode_file(encoder, tmp_path / "rows.jsonl") == expected


def test_an_absent_key_is_no_missing_value(encoder: TableEncoder) -> None:
    with pytest.raises(ValueError, match="lacks the column 'mm'"):
        encoder.encode_row({"island": "a", "zip": 7})


def test_a_category_of_an_earlier_encoder_may_be_called_as_a_missing_value() -> None:
    settings = {"columns": [{"type": "category", "name": "country", "values": ["DE", "NA"], "of_numbers": False}]}
    encoder = TableEncoder.parse_settings(settings)
    assert encoder.encode_row({"country": "NA"}).tolist() == [0, 1]
    assert encoder.unpack_samples(encoder.pack_samples([{"country": "NA"}] * 40).tensors)[INPUT][0].tolist() == [0, 1]
    table = DataTable({"country": ["NA", "null"]}, ["0", "1"])
    assert encoder.encode_table(table, where="data").x.tolist() == [[0, 1], [0, 0]]


def test_the_forms_of_training_are_those_of_requests_and_of_files_to_score(tmp_path: Path) -> None:
    lines = [f"{['1 234,5', '?', '7,5', '-'][row % 4]};{['a', 'b', '-'][row % 3]};{'uv'[row % 2]}" for row in range(48)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["mm;island;y", *lines, ""]))
    data = TableFiles(str(path), "y", val=str(path), missing=["?", "-"], thousands=" ", decimal=",")
    encoder = parse_encoder(json.loads(json.dumps(data.encoder().to_document())), where="encoder")
    assert encoder == data.encoder()
    given: Any = [
        {"mm": "?", "island": "-"},
        {"mm": "1 234,5", "island": "a"},
        {"mm": "-", "island": "?"},
    ]
    plain: Any = [
        {"mm": None, "island": None},
        {"mm": 1234.5, "island": "a"},
        {"mm": None, "island": ""},
    ]
    for one, other in zip(given, plain, strict=True):
        assert encoder.encode_sample(one)[INPUT].tobytes() == encoder.encode_sample(other)[INPUT].tobytes()
        for count in (1, 40):
            sent, expected = (encoder.pack_samples([row] * count) for row in (one, other))
            assert not sent.bad
            np.testing.assert_equal(dict(sent.tensors), dict(expected.tensors))
    inputs = open_inputs(str(path), member=None, key=None, columns=(), kind="table", form=data.form)
    scored = encoder.pack_samples(inputs.read_rows(range(48), ("mm", "island"))[1])  # type: ignore[attr-defined]
    assert not scored.bad
    trained, _ = data.get_rows("val").take_samples(np.arange(48))
    assert encoder.unpack_samples(scored.tensors)[INPUT].tobytes() == trained.tobytes()
