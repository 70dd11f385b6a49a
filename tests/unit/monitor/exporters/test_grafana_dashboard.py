"""The dashboard asks for metrics that the monitor exports, in panels that do not overlap, from a chosen data source."""

import json
import re
from itertools import combinations

from mlscale.monitor.exporters.alerting_rules import render_dashboard
from tests.unit.monitor.conftest import Draw
from tests.unit.monitor.exporters.test_metrics_text import NOW, checked, render

DASHBOARD = json.loads(render_dashboard("m@champion"))


def test_each_query_is_of_a_metric_that_is_exported(draw: Draw) -> None:
    record, check = checked(draw, shift=1.0)
    text = render(record, check.columns, rules=("drift",), newest=NOW)
    exported = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    queries += [variable["definition"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    named = {name for query in queries for name in re.findall(r"mlscale_monitor_\w+", query)}
    assert len(named) >= 14
    assert named <= exported
    assert all('watched="$watched"' in query or "label_values" in query for query in queries)


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(0 <= place["x"] <= place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]


def test_the_data_source_is_a_variable() -> None:
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "watched"]
    assert DASHBOARD["templating"]["list"][1]["current"]["value"] == "m@champion"
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
    assert DASHBOARD["id"] is None
