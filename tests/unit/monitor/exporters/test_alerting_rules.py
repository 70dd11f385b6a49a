"""The rules file is one for Prometheus, and each alert fires when its metric crosses the limit: promtool's own test."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlscale.monitor.alert_rule import AlertPolicy
from mlscale.monitor.exporters.alerting_rules import SILENT, name_alert, render_alerting_rules
from mlscale.monitor.window_check import RULES
from tests.unit.monitor.exporters.promtool import needs_promtool, run_promtool

LABELS = 'model="m",watched="m@champion",version="m:v1"'
CHECKED = {"series": f"mlscale_monitor_last_check_timestamp_seconds{{{LABELS}}}", "values": "0+60x30"}


def write_rules(folder: Path, policy: AlertPolicy | None = None) -> None:
    text = render_alerting_rules("m@champion", tuple(RULES), policy or AlertPolicy(keep=3), 60.0)
    (folder / "rules.yml").write_text(text)


def run_test(folder: Path, series: list[dict[str, str]], name: str, firing: dict[str, bool]) -> None:
    """Whether the alert fires at these times."""
    document: dict[str, Any] = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                        "eval_time": time,
                        "exp_samples": [{"labels": "{}", "value": int(expected)}],
                    }
                    for time, expected in firing.items()
                ],
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(document))
    run_promtool("test", "rules", "test.yml", folder=folder)


@needs_promtool
@pytest.mark.parametrize("policy", [AlertPolicy(), AlertPolicy(looks=3, hysteresis=0.5, keep=1, cooldown=0)])
def test_promtool_takes_the_rules(tmp_path: Path, policy: AlertPolicy) -> None:
    write_rules(tmp_path, policy)
    assert "6 rules found" in run_promtool("check", "rules", "rules.yml", folder=tmp_path)


@needs_promtool
@pytest.mark.parametrize("rule", list(RULES))
def test_each_rule_fires_at_its_limit_continues_above_the_hysteresis_and_ends(tmp_path: Path, rule: str) -> None:
    write_rules(tmp_path)
    # Below, over, above 0.8 of the limit, below that; another model's level must not count.
    levels = {"series": f'mlscale_monitor_rule_level{{{LABELS},rule="{rule}"}}', "values": "0.9x2 1 0.85x3 0.7x9"}
    other = {"series": 'mlscale_monitor_rule_level{watched="other",version="o:v1",rule="drift"}', "values": "9x15"}
    firing = {"2m": False, "3m": True, "6m": True, "7m": True, "9m": True, "11m": False}
    run_test(tmp_path, [CHECKED, levels, other], name_alert(rule), firing)


@needs_promtool
def test_a_rule_waits_for_as_many_checks_as_the_monitor(tmp_path: Path) -> None:
    write_rules(tmp_path, AlertPolicy(looks=3))
    levels = {"series": f'mlscale_monitor_rule_level{{{LABELS},rule="drift"}}', "values": "2 2 0 2x10"}
    run_test(tmp_path, [CHECKED, levels], "MlscaleDrift", {"1m": False, "2m": False, "4m": False, "5m": True})


@needs_promtool
def test_a_monitor_that_ended_or_never_began_is_an_alert(tmp_path: Path) -> None:
    write_rules(tmp_path)
    run_test(tmp_path, [CHECKED], SILENT, {"20m": False})
    stopped = {**CHECKED, "values": "0+60x5 300x20"}
    run_test(tmp_path, [stopped], SILENT, {"9m": False, "15m": True})
    run_test(tmp_path, [], SILENT, {"2m": True})


def test_the_summary_names_the_rule_and_the_command() -> None:
    (group,) = yaml.safe_load(render_alerting_rules("m@champion", ("drift",), AlertPolicy(), 0.5))["groups"]
    drift = group["rules"][0]
    assert drift["annotations"]["summary"] == f"{{{{ $labels.version }}}}: drift: {RULES['drift']}"
    assert "mlscale monitor m@champion" in drift["annotations"]["description"]
    assert (drift["keep_firing_for"], drift["labels"]["severity"]) == ("1500ms", "warning")
