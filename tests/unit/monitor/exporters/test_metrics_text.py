"""What a check has found is what Prometheus reads: by its own parser, with labels, units and nothing unknown."""

import os
import re
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.monitor.check_record import CheckRecord, build_check_record
from mlscale.monitor.exporters.metrics_server import MetricsServer
from mlscale.monitor.exporters.metrics_text import CONTENT_TYPE, render_check_metrics, write_textfile
from mlscale.monitor.window_check import MonitorLimits, WindowCheck, check_rules
from tests.unit.monitor.conftest import Draw, baseline
from tests.unit.monitor.exporters.promtool import needs_promtool, run_promtool

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)


def checked(draw: Draw, n: int = 1000, **drawn: float) -> tuple[CheckRecord, WindowCheck]:
    check = check_rules(baseline(), draw(n, seed=2, labelled=200, **drawn), MonitorLimits(p99_ms=50))
    time = NOW.isoformat()
    return build_check_record(check, watched="m@champion", model="m", time=time, firing=("drift",), alerts=()), check


def values(text: str) -> dict[str, float]:
    """The value of each series, without the labels that all have."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = (line.rpartition(" ") for line in lines)
    common = re.compile(r'model="m",?|watched="m@champion",?|version="m:v1",?')
    return {common.sub("", name).replace("{}", ""): float(value) for name, _, value in pairs}


def test_all_that_a_check_has_found(draw: Draw) -> None:
    record, check = checked(draw, shift=1.0, right=0.9)
    text = render_check_metrics(record, check.columns, rules=("drift", "latency"), checks=7, waiting=2, newest=NOW)
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
    text = render_check_metrics(record, check.columns)
    assert "rule_level{" in text
    assert 'rule="drift"' not in text
    for absent in ("nan", "None", "column_distance", "newest_event", "latency_p99"):
        assert absent not in text


@needs_promtool
@pytest.mark.parametrize("n", [1000, 3])
def test_promtool_takes_the_text(draw: Draw, n: int) -> None:
    record, check = checked(draw, n=n, shift=1.0)
    assert run_promtool("check", "metrics", text=render_check_metrics(record, check.columns, rules=("drift",))) == ""


@needs_promtool
def test_names_with_quotes_and_line_ends_are_escaped() -> None:
    odd = 'a "b" \\ c\nd'
    record = CheckRecord(NOW.isoformat(), odd, odd, odd, 1, {"drift": 1.0})
    text = render_check_metrics(record)
    assert run_promtool("check", "metrics", text=text) == ""
    assert 'watched="a \\"b\\" \\\\ c\\nd"' in text


def test_the_textfile_is_readable_for_node_exporter_and_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "textfiles/m.prom"
    for text in ("a 1\n", "a 2\n"):
        write_textfile(path, text)
        assert path.read_text() == text
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644 & ~mask
    assert os.listdir(path.parent) == ["m.prom"]
    (tmp_path / "file").write_text("")
    with pytest.raises(MLScaleError, match="can't") as caught:
        write_textfile(tmp_path / "file/m.prom", "a 1\n")
    assert "prometheus.textfile=" in caught.value.fix


def test_the_server_serves_the_last_check() -> None:
    with MetricsServer("127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.port}"
        for path, status in (("/metrics", 503), ("/", 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(url + path, timeout=10)
            assert caught.value.code == status
            caught.value.close()
        for text in ("a 1\n", "ä 2\n"):
            server.publish_text(text)
            with urllib.request.urlopen(url + "/metrics", timeout=10) as response:
                assert response.read().decode() == text
                assert response.headers["Content-Type"] == CONTENT_TYPE
        with pytest.raises(MLScaleError, match="can't serve metrics") as taken:
            MetricsServer("127.0.0.1", server.port)
    assert (taken.value.exit, taken.value.where) == (5, "prometheus.port")
