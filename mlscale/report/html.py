"""Render a result as one page: it loads nothing from elsewhere, runs no scripts, and all its texts are escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mlscale.report.blocks import Heading, Picture, Table
from mlscale.report.figures import Bars, Figure, Line, Step
from mlscale.report.text import duration, figures_of, number_like

if TYPE_CHECKING:
    from jinja2 import Template

_RELATIVE = re.compile(r"(?![\w+.-]*:|/)[^\\]+")  # no scheme, no host: a link only to pages next to this one


def page(
    title: str,
    sentence: str,
    ok: bool,
    metrics: Mapping[str, float],
    artifacts: Mapping[str, str],
    figures: Sequence[Figure] = (),
    steps: Sequence[Step] = (),
    overrides: Sequence[str] = (),
) -> str:
    """Return the page of a result, as HTML.

    Args:
        title: the command, and its run or model.
        sentence: the result in one sentence.
        ok: True if the command reached its goal.
        metrics: `{name_unit: value}`; None and NaN are shown as not measured.
        artifacts: the files that were made, name to path.
        figures: plots, in order.
        steps: of the report, in order; numbered, each with its own figure.
        overrides: as typed, secrets masked.
    """
    return _template().render(
        title=_clean(title),
        sentence=_clean(sentence),
        ok=ok,
        metrics=[(_clean(name), value) for name, value in figures_of(metrics)],
        artifacts=[(_clean(name), _clean(str(path))) for name, path in artifacts.items()],
        figures=[_shown(figure) for figure in figures],
        steps=[_told(step) for step in steps],
        overrides=[_clean(word) for word in overrides],
        written=datetime.now().astimezone().strftime("%-d %B %Y, %H:%M %Z"),
    )


@cache
def _template() -> Template:
    """Return the template. Jinja, a dependency of torch, is imported only when a page is written."""
    from jinja2 import Environment, StrictUndefined

    # StrictUndefined: a misspelt name in the template raises an error instead of leaving a gap in the page.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((files("mlscale.report") / "page.html").read_text(encoding="utf-8"))


def _shown(figure: Figure) -> dict[str, Any]:
    """Return a figure's values for the template."""
    from mlscale.report.canvas import COLOURS
    from mlscale.report.svg import draw

    cleaned = figure.masked(_clean)
    if isinstance(cleaned, Heading):
        return {"kind": "heading", "title": cleaned.title, "text": cleaned.text}
    if isinstance(cleaned, Picture):
        shown = {"title": cleaned.title, "source": cleaned.source(), "width": cleaned.width, "alt": cleaned.words()}
        return {"kind": "picture", **shown}
    if isinstance(cleaned, Table):
        return {"kind": "table", **_cells(cleaned)}
    series = cleaned.series[:COLOURS] if isinstance(cleaned, Line | Bars) else ()
    return {
        "kind": "plot",
        "title": cleaned.title,
        "svg": draw(cleaned),
        "bars": isinstance(cleaned, Bars),
        "legend": [each.name for each in series] if len(series) > 1 else [],
    }


def _cells(table: Table) -> dict[str, Any]:
    """Return a table's values for the template: columns with a flag for numbers, which are aligned to the right, and
    rows with a flag for highlighting."""
    columns = [
        # The first column names the rows: it is a text, also where all names are numbers.
        (name, place > 0 and all(number_like(row[place]) for row in table.rows))
        for place, name in enumerate(table.columns)
    ]
    rows = [(row, place in table.marked) for place, row in enumerate(table.rows)]
    return {"title": table.title, "columns": columns, "rows": rows, "note": table.note, "narrow": table.narrow}


def _told(step: Step) -> dict[str, Any]:
    cleaned = step.masked(_clean)
    return {
        "title": cleaned.title,
        "sentence": cleaned.sentence,
        "ok": cleaned.ok,
        "value": cleaned.value,
        "seconds": "" if cleaned.seconds is None else duration(cleaned.seconds),
        "figure": _shown(cleaned.figure) if cleaned.figure else None,
        "page": cleaned.page if _RELATIVE.fullmatch(cleaned.page) else "",
    }


def _clean(text: str) -> str:
    """Replace characters that HTML forbids, or that change the direction of text; line breaks are kept."""
    return "".join(character if character.isprintable() or character in "\n\t" else "�" for character in text)
