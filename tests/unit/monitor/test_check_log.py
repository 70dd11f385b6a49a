"""The checks of a monitor over time: each is a line, the file is bounded, and a killed process leaves it readable."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mlscale.errors import MLScaleError
from mlscale.monitor.check_record import CheckLog, CheckRecord, build_check_record, locate_check_log
from mlscale.monitor.window_check import MonitorLimits, check_rules
from tests.contract.test_documents import validate
from tests.unit.monitor.conftest import Draw, baseline
from tests.unit.monitor.test_alerts import desk, looks

BEGIN = datetime(2026, 1, 5, 10, tzinfo=UTC)
PLAIN = CheckRecord(BEGIN.isoformat(), "m@champion", "m", "m:v1", 500, {"drift": 0.5})
ALERT = {"rule": "drift", "status": "firing", "version": "m:v1", "since": "t", "sentence": "it drifted"}


def at_minute(minute: int, *, is_alert: bool = False) -> CheckRecord:
    time = (BEGIN + timedelta(minutes=minute)).isoformat()
    return replace(PLAIN, time=time, alerts=(ALERT,) if is_alert else ())


def test_the_record_of_a_check_has_drift_score_latency_and_failures(draw: Draw) -> None:
    events = draw(1000, seed=2, shift=1.0, right=0.9, labelled=200, rejected=3)
    check = check_rules(baseline(), events, MonitorLimits())
    record = build_check_record(check, watched="m@champion", model="m", time="t", firing=("drift",), alerts=())
    validate("monitor_check", record.build_document())
    assert record.levels["drift"] is not None
    assert record.levels["drift"] > 1
    assert {column["name"] for column in record.columns if column["alert"]} >= {"input.mean_0", "input.mean_2"}
    assert [column["alert"] for column in record.columns] == sorted((c["alert"] for c in record.columns), reverse=True)
    score = record.score
    assert score is not None
    assert (score.name, score.labels, score.reference) == ("accuracy", 200, 0.99)
    assert score.low is not None
    assert score.value is not None
    assert score.low < score.value < 1
    assert record.metrics["p99_latency_ms"]
    assert record.metrics["rejected_share"] == pytest.approx(3 / 1003)
    assert CheckRecord.parse_document(record.build_document(), "x") == record


def test_a_check_without_data_is_recorded_as_undecided(draw: Draw) -> None:
    check = check_rules(baseline(), draw(3, seed=2), MonitorLimits())
    record = build_check_record(check, watched="m", model="m", time="t", firing=(), alerts=())
    validate("monitor_check", record.build_document())
    assert (record.levels["drift"], record.levels["no_data"], record.columns) == (None, 1.0, ())
    assert record.score is not None
    assert record.score.value is None


def test_each_check_of_a_monitor_is_a_line_with_its_alerts(tmp_path: Path) -> None:
    looks(desk(tmp_path), 0, 2, 2, 0)
    path = tmp_path / "monitor/m_champion-checks.jsonl"
    assert locate_check_log(desk(tmp_path).path) == path
    for line in path.read_text().splitlines():
        validate("monitor_check", json.loads(line))
    records = CheckLog(path).read_records()
    assert [record.levels["drift"] for record in records] == [0, 2, 2, 0]
    assert [record.firing for record in records] == [(), ("drift",), ("drift",), ()]
    assert [[alert["status"] for alert in record.alerts] for record in records] == [[], ["firing"], [], ["resolved"]]


def test_the_file_is_bounded_the_past_coarser_and_alerts_stay(tmp_path: Path) -> None:
    log = CheckLog(tmp_path / "checks.jsonl", most=40)
    for minute in range(1000):
        log.append_record(at_minute(minute, is_alert=minute in (0, 301)))
        assert len((tmp_path / "checks.jsonl").read_text().splitlines()) <= 40
    minutes = [(datetime.fromisoformat(record.time) - BEGIN).total_seconds() / 60 for record in log.read_records()]
    assert {0, 301, 999} <= set(minutes)
    assert minutes == sorted(minutes)
    gaps = np.diff(minutes)
    assert gaps[-10:].max() == 1
    assert gaps[:5].max() > 20


def test_alerts_alone_are_bounded_too(tmp_path: Path) -> None:
    log = CheckLog(tmp_path / "checks.jsonl", most=10)
    for minute in range(50):
        log.append_record(at_minute(minute, is_alert=True))
    assert len(log.read_records()) == 10


def test_a_line_that_was_cut_short_is_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    log = CheckLog(tmp_path / "checks.jsonl")
    log.append_record(at_minute(0))
    with log.path.open("a") as file:
        file.write('{"format": "mlscale/monitor_check/1", "ti')
    log.append_record(at_minute(1))
    assert log.read_records() == [at_minute(0), at_minute(1)]


def test_what_is_no_check_or_of_a_later_format_is_an_error(tmp_path: Path) -> None:
    log = CheckLog(tmp_path / "checks.jsonl")
    assert log.read_records() == []
    log.path.write_text(json.dumps({**PLAIN.build_document(), "format": "mlscale/monitor_check/9"}))
    with pytest.raises(MLScaleError, match="later mlscale"):
        log.read_records()
    document = PLAIN.build_document()
    del document["events"]
    log.path.write_text(json.dumps(document))
    with pytest.raises(MLScaleError, match="the record of a check is corrupt"):
        log.read_records()


def test_a_full_disk_names_the_setting_of_another_path(tmp_path: Path) -> None:
    (tmp_path / "monitor").mkdir()
    (tmp_path / "monitor/m_champion-checks.jsonl").mkdir()
    with pytest.raises(MLScaleError, match=r"can't write m_champion-checks\.jsonl") as caught:
        looks(desk(tmp_path), 0)
    assert "alert.state=" in caught.value.fix
