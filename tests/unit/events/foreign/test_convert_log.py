"""Logs of other servers become events that the monitor reads: each form, versions, outcomes, and times."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.events.store import EventStore
from tests.made_servables import SPECIES, encode_images
from tests.unit.events.foreign.foreign_logs import BEGIN, INPUTS, PLAIN, convert, converter, log, write


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.jsonl"])
def test_each_format_gives_the_same_events_and_labels(tmp_path: Path, name: str) -> None:
    rows = log(12_000)
    report, events, labels = convert(converter(PLAIN + INPUTS), tmp_path, write(tmp_path / name, rows))
    assert (report.rows, report.events, report.labels, report.describe_losses()) == (12_000, 12_000, 6_000, "")
    assert len(events) == 12_000
    assert events.id[:2].tolist() == ["r0", "r1"]
    assert events.time[-1] == np.datetime64("2026-01-05T13:19:59")
    np.testing.assert_allclose(events.inputs["bill_length_mm"], [row["bill_length_mm"] for row in rows])
    assert set(events.inputs["island"].tolist()) == {"Dream"}
    assert events.outputs["label"][:3].tolist() == list(SPECIES)
    assert events.predictions[:3] == list(SPECIES)
    assert set(events.latency_ms.tolist()) == {5.0}
    assert (len(labels), labels["r1"]) == (6_000, "Adelie")
    assert set(events.version.tolist()) == {"m:v1"}
    assert report.newest == BEGIN + timedelta(seconds=11_999)


def test_windows_of_the_store_are_those_of_the_times_in_the_log(tmp_path: Path) -> None:
    """Rows need not be in the order of their times."""
    rows = log(12_000)
    np.random.default_rng(1).shuffle(rows)
    convert(converter(PLAIN), tmp_path, write(tmp_path / "log.parquet", rows))
    store = EventStore(tmp_path / "store")
    since, until = BEGIN + timedelta(seconds=1000), BEGIN + timedelta(seconds=5000)
    chosen = store.read("m", since=since, until=until, version="m:v1", last=100)
    assert chosen.id.tolist() == [f"r{n}" for n in range(4900, 5000)]
    assert store.read("m", last=3).id.tolist() == ["r11997", "r11998", "r11999"]


def test_versions_outcomes_and_early_rows(tmp_path: Path) -> None:
    rows = log(10)
    for row, version in zip(rows, ("1", "v1", "m:v1", "2", "2", 1, 1, 1, 1, 1), strict=True):
        row["model"] = version
        row["status"] = 200
    rows[6] |= {"status": 503, "species": None}
    rows[7] |= {"status": 422, "species": None}
    rows[8] |= {"status": 200, "species": None}
    mapping = PLAIN + "version: model\noutcome: status\n"
    path = write(tmp_path / "log.jsonl", rows)
    report, events, _ = convert(converter(mapping), tmp_path, path, start=BEGIN + timedelta(seconds=1))
    assert report.early == 1
    assert report.other_versions == {"2": 2}
    assert "2 rows of other versions: 2 (2)" in report.describe_losses()
    assert events.id.tolist() == ["r1", "r2", "r5", "r6", "r7", "r9"]
    assert events.outcome.tolist() == ["ok", "ok", "ok", "failed", "rejected", "ok"]
    assert report.unreadable == {"prediction": 1}


def test_the_group_of_a_row_is_its_user(tmp_path: Path) -> None:
    rows = [{**row, "user": user} for row, user in zip(log(3), ("ann", 7, None), strict=True)]
    _, events, _ = convert(converter(PLAIN + "group: user\n"), tmp_path, write(tmp_path / "log.jsonl", rows))
    assert events.get_column("group").tolist() == ["ann", "7", None]


def test_columns_that_are_not_mapped_are_known(tmp_path: Path) -> None:
    made = converter(PLAIN + "inputs: {sex: sex}\n")
    names = ("input.sex", "input.island", "output.label", "output.confidence")
    assert [made.is_mapped(name) for name in names] == [True, False, True, False]
    _, events, _ = convert(made, tmp_path, write(tmp_path / "log.csv", log(5)))
    assert events.inputs["sex"].tolist() == ["female"] * 5
    assert all(converter("time: time\nprobabilities: p\n" + INPUTS).is_mapped(name) for name in names)
    pictures = converter("time: time\nprediction: p\n", encoder=encode_images())
    assert [pictures.is_mapped(name) for name in ("input.brightness", "output.label")] == [False, True]
    texts = converter("time: time\nprediction: p\ninputs: {text: t}\n", encoder=TextEncoder(24))
    assert texts.is_mapped("input.length")


def test_texts_are_summarised_as_the_reference_is(tmp_path: Path) -> None:
    made = converter("time: t\nprediction: p\ninputs: {text: body.text}\n", encoder=TextEncoder(24))
    rows = [{"t": 1767607200, "p": 0, "body": {"text": "Hello 12"}}]
    _, events, _ = convert(made, tmp_path, write(tmp_path / "log.jsonl", rows))
    assert events.inputs["length"].tolist() == [8.0]
    assert events.inputs["digits"].tolist() == [0.25]


def test_files_of_a_folder_are_one_log(tmp_path: Path) -> None:
    files: Sequence[Path] = [write(tmp_path / f"{day}.csv", log(10)) for day in range(3)]
    report, events, _ = convert(converter("time: time\nprediction: species\n"), tmp_path, *files)
    assert (report.events, len(events), len(set(events.id.tolist()))) == (30, 30, 30)


def test_a_log_of_pandas_with_times_of_a_zone_is_read(tmp_path: Path) -> None:
    times = pa.array([BEGIN + timedelta(seconds=n) for n in range(3)], pa.timestamp("ns", tz="Asia/Tokyo"))
    table = pa.table({"time": times, "species": pa.array(SPECIES).dictionary_encode(), "extra": [[1], [2], []]})
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    _, events, _ = convert(converter("time: time\nprediction: species\n"), tmp_path, tmp_path / "log.parquet")
    assert events.time[0] == np.datetime64("2026-01-05T10:00:00")
    assert events.label.tolist() == list(SPECIES)


def test_one_id_is_one_event(tmp_path: Path) -> None:
    """Retries of a client, and a copy of the file next to it; the label of a repeated row counts."""
    rows = log(100)
    for row in rows[:50]:
        row["actual"] = None
    (tmp_path / "logs").mkdir()
    write(tmp_path / "logs/a.jsonl", rows[:60])
    write(tmp_path / "logs/b.jsonl", [*log(100)[40:], *log(1)])
    report, events, labels = convert(converter(PLAIN), tmp_path, *sorted((tmp_path / "logs").iterdir()))
    assert events.id.tolist() == [f"r{n}" for n in range(100)]
    assert (report.rows, report.events, report.repeated) == (121, 100, 21)
    assert "21 rows repeated by id and counted once" in report.describe_losses()
    assert {"r41", "r43"} <= set(labels)


@pytest.mark.parametrize("name", ["a-labels.jsonl", "z-labels.jsonl"])
def test_labels_that_come_later_are_a_file_of_ids_and_labels(tmp_path: Path, name: str) -> None:
    rows = [{**row, "actual": None} for row in log(10)]
    (tmp_path / "logs").mkdir()
    write(tmp_path / "logs/log.jsonl", rows)
    write(tmp_path / "logs" / name, [{"id": f"r{n}", "actual": SPECIES[0]} for n in range(4)])
    report, events, labels = convert(converter(PLAIN), tmp_path, *sorted((tmp_path / "logs").iterdir()))
    assert (len(events), sorted(labels), report.labels_alone) == (10, ["r0", "r1", "r2", "r3"], 4)
    assert report.describe_losses() == ""
    assert report.newest == BEGIN + timedelta(seconds=9)


def test_an_id_of_several_predictions_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", [{**row, "id": f"r{number // 5}"} for number, row in enumerate(log(20))])
    report, events, _ = convert(converter(PLAIN), tmp_path, path)
    assert (len(events), report.repeated) == (4, 16)
    assert 0 < report.differing <= 16
    assert f"{report.differing} with another prediction or input: map an id of the row" in report.describe_losses()


def test_labels_whose_ids_no_event_has_are_named(tmp_path: Path) -> None:
    write(tmp_path / "log.jsonl", [{**row, "actual": None} for row in log(10)])
    write(tmp_path / "labels.jsonl", [{"id": name, "actual": SPECIES[0]} for name in ("r1", "R2", "R3")])
    report, _, _ = convert(converter(PLAIN), tmp_path, tmp_path / "labels.jsonl", tmp_path / "log.jsonl")
    assert report.unmatched == ["R2", "R3"]
    lost = "2 of 3 rows with a label alone have an id that no event read has ('R2')"
    assert report.describe_losses() == lost


def test_an_answer_after_a_failure_of_the_same_id_counts(tmp_path: Path) -> None:
    rows = log(4)
    for row in rows:
        row["status"] = 200
    failed = {**rows[1], "status": 503, "species": None, "actual": None}
    path = write(tmp_path / "log.jsonl", [rows[0], failed, failed, rows[1], rows[1], *rows[2:]])
    report, events, _ = convert(converter(PLAIN + "outcome: status\n"), tmp_path, path)
    assert sorted(zip(events.id.tolist(), events.outcome.tolist(), strict=True)) == [
        ("r0", "ok"), ("r1", "failed"), ("r1", "ok"), ("r2", "ok"), ("r3", "ok"),
    ]  # fmt: skip
    assert report.repeated == 2
