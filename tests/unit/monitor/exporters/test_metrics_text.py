"""What a check has found is what Prometheus reads: by its own parser, with labels, units and nothing unknown."""

import os
import re
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest

from mlscale.atomic_files import write_setting_file
from mlscale.commands.monitor.metric_export import MetricExport
from mlscale.errors import MLScaleError
from mlscale.monitor.check_record import CheckRecord, build_check_record
from mlscale.monitor.exporters.metrics_text import CheckCollector, build_check_metrics
from mlscale.monitor.window_check import MonitorLimits, WindowCheck, check_rules
from tests.unit.monitor.conftest import Draw, baseline
from tests.unit.monitor.exporters.promtool import needs_promtool, run_promtool

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)


def checked(draw: Draw, n: int = 1000, **drawn: float) -> tuple[CheckRecord, WindowCheck]:
    check = check_rules(baseline(), draw(n, seed=2, labelled=200, **drawn), MonitorLimits(p99_ms=50))
    time = NOW.isoformat()
    return build_check_record(check, watched="m@champion", model="m", time=time, firing=("drift",), alerts=()), check


def render(record: CheckRecord, *columns: Any, **known: Any) -> str:
    return generate_latest(CheckCollector(build_check_metrics(record, *columns, **known))).decode()


def values(text: str) -> dict[str, float]:
    """The value of each series, without the labels that all have."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = (line.rpartition(" ") for line in lines)
    common = re.compile(r'model="m",?|watched="m@champion",?|version="m:v1",?')
    return {common.sub("", name).replace(",}", "}").replace("{}", ""): float(value) for name, _, value in pairs}


def test_all_that_a_check_has_found(draw: Draw) -> None:
    record, check = checked(draw, shift=1.0, right=0.9)
    text = render(record, check.columns, rules=("drift", "latency"), checks=7, waiting=2, newest=NOW)
    found = values(text)
    assert found["mlscale_monitor_checks_total"] == 7
    assert found["mlscale_monitor_waiting_alerts"] == 2
    assert found["mlscale_monitor_last_check_timestamp_seconds"] == NOW.timestamp()
    assert found["mlscale_monitor_newest_event_timestamp_seconds"] == NOW.timestamp()
    assert found["mlscale_monitor_window_events"] == 1000
    assert found["mlscale_monitor_labelled_events"] == 200
    assert record.score is not None
    assert found['mlscale_monitor_score{metric="accuracy"}'] == record.score.value
    assert found['mlscale_monitor_score_reference{metric="accuracy"}'] == 0.99
    assert found['mlscale_monitor_rule_level{rule="drift"}'] > 1
    assert found['mlscale_monitor_rule_firing{rule="drift"}'] == 1
    assert found['mlscale_monitor_rule_firing{rule="latency"}'] == 0
    assert found['mlscale_monitor_column_distance{column="input.mean_0"}'] > 0.1
    assert found['mlscale_monitor_column_detected{column="input.mean_0"}'] == 1
    p99 = record.metrics["p99_latency_ms"]
    assert p99 is not None
    assert found["mlscale_monitor_latency_p99_seconds"] == pytest.approx(p99 / 1000)
    assert 'version="m:v1"' in text


def test_what_is_not_known_has_no_series(draw: Draw) -> None:
    record, check = checked(draw, n=3)
    text = render(record, check.columns)
    assert "rule_level{" in text
    assert 'rule="drift"' not in text
    for absent in ("nan", "None", "column_distance", "newest_event", "latency_p99"):
        assert absent not in text


@needs_promtool
@pytest.mark.parametrize("n", [1000, 3])
def test_promtool_takes_the_text(draw: Draw, n: int) -> None:
    record, check = checked(draw, n=n, shift=1.0)
    assert run_promtool("check", "metrics", text=render(record, check.columns, rules=("drift",))) == ""


@needs_promtool
def test_names_with_quotes_and_line_ends_are_escaped() -> None:
    odd = 'a "b" \\ c\nd'
    record = CheckRecord(NOW.isoformat(), odd, odd, odd, 1, {"drift": 1.0})
    text = render(record)
    assert run_promtool("check", "metrics", text=text) == ""
    assert 'watched="a \\"b\\" \\\\ c\\nd"' in text


def test_the_textfile_is_readable_for_node_exporter_and_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "textfiles/m.prom"
    for text in ("a 1\n", "a 2\n"):
        write_setting_file("prometheus.textfile", path, text, mode=0o644)
        assert path.read_text() == text
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644 & ~mask
    assert os.listdir(path.parent) == ["m.prom"]
    (tmp_path / "file").write_text("")
    with pytest.raises(MLScaleError, match="can't") as caught:
        write_setting_file("prometheus.textfile", tmp_path / "file/m.prom", "a 1\n")
    assert "prometheus.textfile=" in caught.value.fix


def test_the_server_serves_the_last_check(draw: Draw) -> None:
    record, check = checked(draw)
    alerts: Any = SimpleNamespace(record=record, checks=2, waiting=0)
    export = MetricExport(port=0)
    with export.serve_metrics() as url:
        with urllib.request.urlopen(url, timeout=10) as response:
            assert response.read() == b""
        export.export_check(alerts, check.columns, ("drift",), NOW)
        with urllib.request.urlopen(url, timeout=10) as response:
            assert values(response.read().decode())["mlscale_monitor_checks_total"] == 2
        port = urllib.parse.urlsplit(url).port
        with (
            pytest.raises(MLScaleError, match="can't serve metrics") as taken,
            MetricExport(port=port).serve_metrics(),
        ):
            pass
    assert (taken.value.exit, taken.value.where) == (5, "prometheus.port")
