"""A dashboard for Grafana 10 or later, over the metrics that the monitor exports; the data source is a variable."""

from __future__ import annotations

import json
from importlib import resources


def render_dashboard(watched: str) -> str:
    """Return the dashboard as JSON.

    Args:
        watched: the reference that is shown first, `resnet@champion`; a variable of the dashboard chooses others.
    """
    document = json.loads(resources.files(__package__).joinpath("dashboard.json").read_text(encoding="utf-8"))
    (variable,) = (item for item in document["templating"]["list"] if item["name"] == "watched")
    variable["current"] |= {"text": watched, "value": watched}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
