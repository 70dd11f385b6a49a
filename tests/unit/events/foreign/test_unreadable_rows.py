"""What can't be read is counted and named; a mapping that does not fit the log or the model is an error."""

import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.events.foreign.log_files import RecordPlace
from tests.made_servables import SPECIES, encode_images
from tests.unit.events.foreign.foreign_logs import INPUTS, PLAIN, convert, converter, log, write


def test_what_can_not_be_read_is_counted_and_named(tmp_path: Path) -> None:
    rows = log(10)
    rows[1]["time"] = "soon"
    rows[2]["species"] = "Emperor"
    rows[3]["actual"] = "Emperor"
    rows[4]["body_mass_g"] = "heavy"
    rows[5]["latency"] = "fast"
    lines = [*map(json.dumps, rows), "{"]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    report, events, labels = convert(converter(PLAIN + INPUTS), tmp_path, tmp_path / "log.jsonl")
    counts = {"time": 1, "prediction": 1, "label": 1, "inputs": 1, "latency": 1, "line": 1}
    assert report.unreadable == counts
    # A label that can't be read is lost alone.
    assert (report.rows, report.events, len(events)) == (11, 6, 6)
    assert set(labels) == {"r7", "r9"}
    reported = report.describe_losses()
    assert "1 row can't be read by the time (line 2 of log.jsonl: 'soon' is not a time)" in reported
    assert "line 3 of log.jsonl: 'Emperor' is not a class" in reported
    assert "line 11 of log.jsonl: not an object of JSON" in reported


@pytest.mark.parametrize(
    ("name", "content", "row", "place"),
    [
        ("log.csv", 'time,text\n1,"a\nb"\n\n2,c\n', 2, "line 5 of log.csv"),
        ("log.csv.gz", "time,text\n1,a\n2,c\n", 2, "line 3 of log.csv.gz"),
        ("log.jsonl", "{}\n\n{}\n", 2, "line 3 of log.jsonl"),
        ("log.json", "{}\n{}\n", 2, "line 2 of log.json"),
        ("log.parquet", "", 12, "log.parquet:12"),
    ],
)
def test_a_record_is_named_by_its_line_as_rows_of_tables_are(
    tmp_path: Path, name: str, content: str, row: int, place: str
) -> None:
    with (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "wt", encoding="utf-8") as file:
        file.write(content)
    assert str(RecordPlace(tmp_path / name, row)) == place


def test_a_torn_row_of_csv_is_counted_and_named(tmp_path: Path) -> None:
    """The last line may be one that is being written."""
    lines = write(tmp_path / "log.csv", log(12_000)).read_text().splitlines()
    lines[5] += ",more"
    torn = tmp_path / "torn.csv"
    torn.write_text("\n".join(lines)[:-40])
    report, events, _ = convert(converter(PLAIN + INPUTS), tmp_path, torn)
    assert (report.rows, len(events), report.unreadable) == (12_000, 11_998, {"line": 2})
    why = "line 6 of torn.csv: not as many values as the heading has columns"
    assert report.describe_losses() == f"2 rows can't be read by the line ({why})"
    # A row keeps its own number.
    assert events.id[[3, 4, -1]].tolist() == ["r3", "r5", "r11998"]


def test_rows_without_a_prediction_or_any_input_are_named(tmp_path: Path) -> None:
    rows = log(10)
    del rows[1]["species"], rows[1]["actual"]
    for name in ("island", "bill_length_mm", "body_mass_g", "sex"):
        del rows[2][name]
        rows[3][name] = None
    report, _, _ = convert(converter(PLAIN + INPUTS), tmp_path, write(tmp_path / "log.jsonl", rows))
    assert report.unreadable == {"prediction": 1, "inputs": 1}
    assert "(line 2 of log.jsonl: it has none)" in report.describe_losses()
    assert "(line 3 of log.jsonl: none of the 4 mapped ones is there)" in report.describe_losses()


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_labels_that_come_later_need_no_version(tmp_path: Path, name: str) -> None:
    rows = log(10)
    labels = write(tmp_path / name, [{"id": row["id"], "actual": SPECIES[0]} for row in rows[:4]])
    for number, row in enumerate(rows):
        row["model"], row["actual"] = "1" if number else "2", None
    made = converter(PLAIN + "version: model")
    report, events, found = convert(made, tmp_path, write(tmp_path / "log.jsonl", rows), labels)
    assert (len(events), report.labels_alone, report.unmatched, report.other_versions) == (9, 4, [], {"2": 1})
    assert set(found) >= {"r1", "r2", "r3"}


@pytest.mark.parametrize(
    ("mapping", "what", "fix"),
    [
        ("time: tiem\nprediction: species", "no column 'tiem' in log.csv", "time: time"),
        ("time: time\nprediction: species\nlabel: actuall", "no column 'actuall' in log.csv", "label: actual"),
        ("time: time\nprediction: species\ninputs: {sex: sexx}", "no column 'sexx' in log.csv", "inputs.sex: sex"),
    ],
)
@pytest.mark.parametrize("name", ["log.csv", "log.parquet", "log.jsonl"])
def test_a_column_that_is_not_there_is_an_error_that_lists_what_is(
    tmp_path: Path, mapping: str, what: str, fix: str, name: str
) -> None:
    with pytest.raises(MLScaleError) as caught:
        convert(converter(mapping), tmp_path, write(tmp_path / name, log(5)))
    assert caught.value.what == what.replace("log.csv", name)
    assert (caught.value.fix, caught.value.exit) == (fix, 2)
    assert "it has: time, id, island" in caught.value.why


def test_a_mapping_that_does_not_fit_the_model_is_an_error() -> None:
    with pytest.raises(MLScaleError, match="the model has no input 'bodymass'") as caught:
        converter(PLAIN + "inputs: {bodymass: x}")
    assert "body_mass_g" in caught.value.fix
    with pytest.raises(MLScaleError, match="takes neither rows nor texts"):
        converter(PLAIN + INPUTS, encoder=encode_images())
    with pytest.raises(MLScaleError, match="not read for the task type segmentation"):
        converter(PLAIN, "segmentation")


def test_a_time_in_the_future_is_reported_and_no_event(tmp_path: Path) -> None:
    """A wrong zone, or a unit that is taken for another one: a window would begin or end at the wrong time."""
    rows = log(10)
    rows[3]["time"] = (datetime.now(UTC) + timedelta(hours=9)).isoformat()
    rows[4]["time"] = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    report, events, _ = convert(converter(PLAIN), tmp_path, write(tmp_path / "log.jsonl", rows))
    assert len(events) == 9
    assert re.search(
        "by the time .* is in the future: the mapping needs the zone or the format of time", report.describe_losses()
    )
