"""Files of a log: each format gives the same records, in batches; what is not there is an error that lists what is."""

import gzip
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from mlscale.errors import MLScaleError
from mlscale.events.foreign.log_files import RecordPlace, find_log_files, iterate_records, list_skipped_files
from tests.unit.events.foreign.foreign_logs import write

ROWS = [
    {"id": f"{number:03}", "x.y": number / 2, "text": 'a,\n"b"' if number % 2 else None} for number in range(12_000)
]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl", "a.csv.gz", "a.jsonl.gz", "A.JSONL"])
def test_each_format_gives_all_records_in_batches(tmp_path: Path, name: str) -> None:
    batches = list(iterate_records(write(tmp_path / name, ROWS)))
    records = [record for batch in batches for record in batch.records]
    assert len(batches) >= 3
    assert max(len(batch.records) for batch in batches) <= 5_000
    assert [batch.first for batch in batches][:2] == [1, 1 + len(batches[0].records)]
    shown = [(record["id"], float(record["x.y"]), record["text"]) for record in records if record is not None]
    assert shown == [(row["id"], row["x.y"], row["text"]) for row in ROWS]


def test_a_text_of_csv_may_be_a_document_and_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    text = "word, " * 50_000
    (tmp_path / "a.csv").write_bytes(f'\ufeffid,text\r\n1,"{text}"\r\n\r\n2,\r\n'.encode())
    (batch,) = iterate_records(tmp_path / "a.csv")
    assert list(batch.records) == [{"id": "1", "text": text}, {"id": "2", "text": None}]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_columns_that_are_not_needed_are_not_read(tmp_path: Path, name: str) -> None:
    batch = next(iter(iterate_records(write(tmp_path / name, ROWS[:3]), ["id", "x.y"])))
    assert batch.records[0] is not None
    assert set(batch.records[0]) == {"id", "x.y"}


def test_a_line_that_is_no_object_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": \n[1]\n{"a": 2}')
    (batch,) = iterate_records(tmp_path / "a.jsonl")
    assert list(batch.records) == [{"a": 1}, None, None, {"a": 2}]


def test_times_of_nanoseconds_are_read(tmp_path: Path) -> None:
    column = pa.array([1_767_607_200_123_456_789], pa.timestamp("ns", tz="Europe/Berlin"))
    pyarrow.parquet.write_table(pa.table({"t": column}), tmp_path / "a.parquet")
    (batch,) = iterate_records(tmp_path / "a.parquet")
    assert batch.records[0] is not None
    assert batch.records[0]["t"] == datetime(2026, 1, 5, 10, 0, 0, 123456, tzinfo=UTC)


def test_a_file_a_folder_and_a_glob(tmp_path: Path) -> None:
    names = ["2.csv", "1.csv", "3.jsonl", "notes.txt", "mapping.yaml"]
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / "deeper.csv").mkdir()
    assert [path.name for path in find_log_files(tmp_path)] == ["1.csv", "2.csv", "3.jsonl"]
    assert [path.name for path in find_log_files(tmp_path / "*.csv")] == ["1.csv", "2.csv"]
    assert find_log_files(tmp_path / "3.jsonl") == [tmp_path / "3.jsonl"]


def test_decimals_of_parquet_are_numbers(tmp_path: Path) -> None:
    prices = pa.array([Decimal("1.25"), None])
    pa.parquet.write_table(
        pa.table({"price": prices, "in": pa.StructArray.from_arrays([prices], ["x"])}), tmp_path / "a.parquet"
    )
    (batch,) = iterate_records(tmp_path / "a.parquet")
    assert batch.records == [{"price": 1.25, "in": {"x": 1.25}}, {"price": None, "in": {"x": None}}]


def test_rotated_files_are_read_and_others_that_look_like_logs_are_listed(tmp_path: Path) -> None:
    """As logrotate and the handlers of Python's logging name them."""
    read = ["a.csv-20261202", "a.jsonl", "a.jsonl.1", "a.jsonl.2.gz", "a.jsonl.2026-12-02_14", "b-2026.12.02.jsonl"]
    for name in (*read, "a.jsonl.3.zst", "a.csv.bz2", "v1.2", "notes.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in find_log_files(tmp_path)] == read
    assert list_skipped_files(tmp_path) == ["a.csv.bz2", "a.jsonl.3.zst"]
    write(tmp_path / "a.jsonl", ROWS[:3]).rename(tmp_path / "a.jsonl.1")
    assert [len(batch.records) for batch in iterate_records(tmp_path / "a.jsonl.1")] == [3]
    assert str(RecordPlace(tmp_path / "a.jsonl.1", 2)) == "line 2 of a.jsonl.1"
    # BentoML's ending is that of a server's messages, too.
    write(tmp_path / "a.jsonl", ROWS[:3]).rename(tmp_path / "data.1.log")
    assert list_skipped_files(tmp_path) == ["a.csv.bz2", "a.jsonl.3.zst", "data.1.log"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data.1.log").rename(tmp_path / "data" / "data.1.log")
    assert [path.name for path in find_log_files(tmp_path / "data")] == ["data.1.log"]
    assert [len(batch.records) for batch in iterate_records(tmp_path / "data" / "data.1.log")] == [3]


def test_a_wrong_path_lists_what_is_there_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "predictions.parquet").write_text("")
    with pytest.raises(MLScaleError) as caught:
        find_log_files(tmp_path / "prediction.parquet")
    assert "has: predictions.parquet" in caught.value.why
    assert caught.value.fix == f"events={tmp_path / 'predictions.parquet'}"
    with pytest.raises(MLScaleError, match="no events at"):
        find_log_files(tmp_path / "no" / "such" / "*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MLScaleError) as caught:
        find_log_files(tmp_path / "empty")
    assert "no file that ends in .parquet, .csv" in caught.value.why


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.parquet", "not Parquet", "can't read a.parquet as events"),
        ("a.csv", "", "can't read a.csv as events"),
        ("a.jsonl.gz", "not gzip", "can't read a.jsonl.gz as events"),
        ("a.xlsx", "x", "can't read a.xlsx as events"),
    ],
)
def test_a_file_that_can_not_be_read_is_an_error(tmp_path: Path, name: str, content: str, what: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(MLScaleError, match=what):
        list(iterate_records(tmp_path / name))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_semicolons_are_read_and_an_encoding_of_excel_is_an_error_without_a_traceback(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pack = gzip.compress if name.endswith(".gz") else bytes
    text = "Zeit;Prüfer, Ort;x\n1;Groß;2,5\n2;Öz;3,5\n3;"
    (tmp_path / name).write_bytes(pack(text.encode()))
    assert next(iterate_records(tmp_path / name)).records[1] == {"Zeit": "2", "Prüfer, Ort": "Öz", "x": "3,5"}
    # A torn row with such a byte.
    (tmp_path / name).write_bytes(pack("Zeit,x\n1,2\nÖz\n3,4\n".encode("cp1252")))
    with pytest.raises(MLScaleError, match=f"can't read {name} as events") as caught:
        next(iterate_records(tmp_path / name))
    assert "iconv -f cp1252 -t utf8" in caught.value.fix
    assert capfd.readouterr().err == ""


def test_a_character_that_is_being_written_hides_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("a,b\n1,2\n3,Ö".encode()[:-1])
    (batch,) = iterate_records(tmp_path / "a.csv", ["a"])
    assert batch.records[0] == {"a": "1"}


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_compressed_file_that_is_cut_short_ends_where_it_can_not_be_read(tmp_path: Path, name: str) -> None:
    """As one that is being rotated: the other files of the log are read all the same."""
    rows = [f"{number},{number * 7919 % 10007}" for number in range(12_000)]
    lines = ["a,b", *rows] if "csv" in name else [f'{{"a": "{row}"}}' for row in rows]
    packed = gzip.compress("\n".join(lines).encode())
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    batches = list(iterate_records(tmp_path / name))
    records = [record for batch in batches for record in batch.records]
    assert 5_000 < len(records) < 11_000
    assert None not in records[:-2]
    assert records[-1] is None
    assert batches[-1].why_unreadable.endswith("or the compressed file is cut short")
    # The place of what can't be read is found without the bytes that are missing.
    assert str(RecordPlace(tmp_path / name, len(records))).startswith("line ")


def test_an_array_of_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a log.json").write_text('[\n{"a": 1},\n{"a": 2}\n]')
    with pytest.raises(MLScaleError, match="is an array of JSON") as caught:
        list(iterate_records(tmp_path / "a log.json"))
    assert caught.value.fix == f"jq -c '.[]' '{tmp_path}/a log.json' > '{tmp_path}/a log-lines.jsonl'"
    for name, read in (("a.jsonl", "jq -c '.[]' {}"), ("a.jsonl.gz", "gzip -dc {} | jq -c '.[]'")):
        content = b'[{"a": 1}]'
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        with pytest.raises(MLScaleError, match="is an array of JSON") as caught:
            list(iterate_records(tmp_path / name))
        # Never onto itself, which would empty it.
        assert caught.value.fix == f"{read.format(tmp_path / name)} > {tmp_path}/a-lines.jsonl"
