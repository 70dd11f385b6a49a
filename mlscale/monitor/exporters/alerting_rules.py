"""The monitor's rules as alerting rules of Prometheus (2.42 or later), over the metrics that the monitor exports.

A dashboard for Grafana 10 or later, over the metrics that the monitor exports; the data source is a variable.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from mlscale.monitor.alert_rule import AlertPolicy
from mlscale.monitor.exporters.metrics_text import PREFIX
from mlscale.monitor.window_check import RULES

_SEVERITIES = {"degradation": "critical", "failures": "critical", "no_data": "critical"}  # warning for the others
SILENT = "MlscaleMonitorSilent"
_SILENT_CHECKS, _SILENT_SECONDS = 5, 300.0  # without a check: the longer of the two


def render_alerting_rules(watched: str, rules: Sequence[str], policy: AlertPolicy, every_s: float) -> str:
    """Return a rules file as YAML: an alert for each rule, and one for a monitor that no longer checks.

    Args:
        watched: the reference as the user named it, `resnet@champion`.
        rules: those that may become incidents.
        policy: how long a level must be over the limit, and below it.
        every_s: seconds from one check to the next.
    """
    import yaml

    alerts = [_build_rule_alert(rule, watched, policy, every_s) for rule in rules]
    document = {"groups": [{"name": f"mlscale {watched}", "rules": [*alerts, _build_silence_alert(watched, every_s)]}]}
    text: str = yaml.safe_dump(document, sort_keys=False, width=4096, allow_unicode=True)
    return f"# Alerting rules of mlscale monitor {watched}; for rule_files of prometheus.yml.\n{text}"


def name_alert(rule: str) -> str:
    """Return the name of a rule's alert: MlscaleNoData."""
    return "Mlscale" + "".join(word.capitalize() for word in rule.split("_"))


def _build_rule_alert(rule: str, watched: str, policy: AlertPolicy, every_s: float) -> dict[str, Any]:
    name = name_alert(rule)
    chosen = f'watched="{_escape_label(watched)}"'
    level = f'{PREFIX}_rule_level{{{chosen},rule="{rule}"}}'
    firing = f'ALERTS{{alertname="{name}",alertstate="firing",{chosen}}}'
    alert: dict[str, Any] = {
        "alert": name,
        # Hysteresis: an incident continues as long as the level stays above that share of the limit.
        "expr": f"{level} >= 1 or ({level} >= {policy.hysteresis:g} and on (watched, version, rule) {firing})",
    }
    # The first check over the limit is at once, the last one `looks - 1` intervals later.
    if policy.looks > 1:
        alert["for"] = _format_seconds((policy.looks - 1) * every_s)
    alert["keep_firing_for"] = _format_seconds(policy.keep * every_s)
    alert["labels"] = {"severity": _SEVERITIES.get(rule, "warning")}
    alert["annotations"] = {
        "summary": f"{{{{ $labels.version }}}}: {rule}: {RULES[rule]}",
        "description": f"{{{{ $value | printf `%.3g` }}}} times its limit; see: mlscale monitor {watched}",
    }
    return alert


def _build_silence_alert(watched: str, every_s: float) -> dict[str, Any]:
    time = f'{PREFIX}_last_check_timestamp_seconds{{watched="{_escape_label(watched)}"}}'
    longest = max(_SILENT_CHECKS * every_s, _SILENT_SECONDS)
    return {
        "alert": SILENT,
        "expr": f"time() - {time} > {longest:g} or absent({time})",
        # A scrape may be lost now and then.
        "for": _format_seconds(every_s),
        "labels": {"severity": "critical"},
        "annotations": {
            "summary": f"{watched} is not monitored",
            "description": f"no check for {longest:g} s; start it again: mlscale monitor {watched} watch=true",
        },
    }


def _escape_label(text: str) -> str:
    # The backslash first, or it would escape those of the others again.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _format_seconds(seconds: float) -> str:
    """Return a duration as Prometheus writes it: whole milliseconds."""
    return f"{max(1, round(seconds * 1000))}ms" if seconds % 1 else f"{round(seconds)}s"


def render_dashboard(watched: str) -> str:
    """Return the dashboard as JSON.

    Args:
        watched: the reference that is shown first, `resnet@champion`; a variable of the dashboard chooses others.
    """
    document = json.loads(resources.files(__package__).joinpath("dashboard.json").read_text(encoding="utf-8"))
    (variable,) = (item for item in document["templating"]["list"] if item["name"] == "watched")
    variable["current"] |= {"text": watched, "value": watched}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
