"""A result as one page: nothing is loaded from elsewhere, nothing runs in it, and whatever it shows is escaped."""

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

_RELATIVE = re.compile(r"(?![\w+.-]*:|/)[^\\]+")  # no scheme, no host: it stays among the pages beside this one


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
    """The page of a result, as HTML.

    Args:
        title: the verb, and what it worked on.
        sentence: what a person would say.
        ok: whether what was asked for holds.
        metrics: `{name_unit: value}`; None and NaN are told as not measured.
        artifacts: what was made, name to path.
        figures: plots, in order.
        steps: of a story, in order; numbered, each with its own figure.
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
    """The one template. Jinja comes with torch; it is imported where a page is written, and nowhere else."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((files("mlscale.report") / "page.html").read_text(encoding="utf-8"))


def _shown(figure: Figure) -> dict[str, Any]:
    """What the template needs of a figure."""
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
    """Columns, each with whether it holds numbers, which stand to the right; rows, each with whether it stands out."""
    columns = [
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
    """No characters that HTML forbids, or that turn the direction of what follows; lines stay."""
    return "".join(character if character.isprintable() or character in "\n\t" else "�" for character in text)
