"""A dashboard for Grafana 10 or later, over the metrics that the monitor exports; the data source is a variable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlscale.monitor.exporters.metrics_text import PREFIX

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_SCHEMA = 39  # of Grafana 10.3; later ones migrate it when they load it
_WATCHED = 'watched="$watched"'
_HEIGHT, _WIDTH = 8, 12  # of a panel; the grid is 24 wide


def render_dashboard(watched: str) -> str:
    """Return the dashboard as JSON.

    Args:
        watched: the reference that is shown first, `resnet@champion`; a variable of the dashboard chooses others.
    """
    panels = [
        _build_time_series(
            "Task metric",
            {
                "score": "{{metric}}",
                "score_low": "lower end",
                "score_high": "upper end",
                "score_reference": "reference",
            },
        ),
        _build_time_series("Rules, relative to their limits", {"rule_level": "{{rule}}"}, limit=1.0),
        _build_time_series(
            "Drift by column: distance from the reference", {"column_distance": "{{column}}"}, largest=10
        ),
        _build_timeline("Incidents", "rule_firing", "{{rule}}"),
        _build_time_series(
            "Events in the window", {"window_events": "events {{version}}", "labelled_events": "labelled {{version}}"}
        ),
        _build_time_series("Columns", {"drifted_columns": "drifted", "detected_columns": "detected"}),
        _build_time_series("Latency", {"latency_p50_seconds": "p50", "latency_p99_seconds": "p99"}, unit="s"),
        _build_time_series(
            "Requests not answered", {"rejected_ratio": "rejected", "failed_ratio": "failed"}, unit="percentunit"
        ),
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, 24 // _WIDTH)
        panel["id"] = number + 1
        panel["gridPos"] = {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT}
    document = {
        "id": None,
        "uid": "mlscale-monitor",
        "title": "mlscale monitor",
        "description": "Drift, degradation, latency and failures of models that mlscale monitors.",
        "tags": ["mlscale"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": _SCHEMA,
        "version": 1,
        "refresh": "1m",
        "timezone": "browser",
        "time": {"from": "now-7d", "to": "now"},
        "timepicker": {},
        "templating": {"list": _build_variables(watched)},
        "annotations": {"list": [_build_alert_annotation()]},
        "links": [],
        "panels": panels,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _build_variables(watched: str) -> list[dict[str, Any]]:
    query = f"label_values({PREFIX}_last_check_timestamp_seconds, watched)"
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
            "hide": 0,
            "options": [],
            "current": {},
        },
        {
            "name": "watched",
            "label": "Model",
            "type": "query",
            "datasource": _SOURCE,
            "definition": query,
            "query": {"query": query, "refId": "watched"},
            "refresh": 2,  # when the time range changes
            "sort": 1,
            "hide": 0,
            "includeAll": False,
            "multi": False,
            "options": [],
            "current": {"selected": True, "text": watched, "value": watched},
        },
    ]


def _build_alert_annotation() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": _SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": f'ALERTS{{alertname=~"Mlscale.*",alertstate="firing",{_WATCHED}}}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{version}}",
        "step": "60s",
    }


def _build_time_series(
    title: str, metrics: Mapping[str, str], *, unit: str = "short", limit: float | None = None, largest: int = 0
) -> dict[str, Any]:
    """Return a panel of lines.

    Args:
        metrics: names without the prefix, and what the legend shows.
        limit: a red line.
        largest: only so many series with the largest values; 0 for all.
    """
    # The first step has no value: it is the colour below all others.
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if limit is not None:
        steps.append({"color": "red", "value": limit})
    custom: dict[str, Any] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 0,
        "showPoints": "auto",
        "spanNulls": False,
    }
    custom["thresholdsStyle"] = {"mode": "line" if limit is not None else "off"}
    defaults = {"unit": unit, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return _build_panel("timeseries", title, metrics, defaults, options, largest)


def _build_timeline(title: str, metric: str, legend: str) -> dict[str, Any]:
    states = {"0": {"text": "ok", "color": "green", "index": 0}, "1": {"text": "alerting", "color": "red", "index": 1}}
    defaults = {"mappings": [{"type": "value", "options": states}], "custom": {"fillOpacity": 70, "lineWidth": 0}}
    options = {
        "showValue": "never",
        "mergeValues": True,
        "rowHeight": 0.9,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _build_panel("state-timeline", title, {metric: legend}, defaults, options, 0)


def _build_panel(
    kind: str,
    title: str,
    metrics: Mapping[str, str],
    defaults: Mapping[str, Any],
    options: Mapping[str, Any],
    largest: int,
) -> dict[str, Any]:
    return {
        "type": kind,
        "title": title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": list(_build_targets(metrics, largest)),
    }


def _build_targets(metrics: Mapping[str, str], largest: int) -> Sequence[dict[str, Any]]:
    targets = []
    for letter, (metric, legend) in zip("ABCDEFGH", metrics.items(), strict=False):
        query = f"{PREFIX}_{metric}{{{_WATCHED}}}"
        # A model of hundreds of columns would have as many lines.
        expr = f"topk({largest}, {query})" if largest else query
        targets.append(
            {
                "refId": letter,
                "datasource": _SOURCE,
                "editorMode": "code",
                "expr": expr,
                "legendFormat": legend,
                "range": True,
            }
        )
    return targets
