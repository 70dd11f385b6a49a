"""Render a result as one page: it loads nothing from elsewhere, runs no scripts, and all its texts are escaped.

A notebook shows the page with its style limited to the cell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlscale.report.blocks import (
    CommandList,
    Heading,
    ImageBlock,
    KeyNumbers,
    TableBlock,
    encode_data_url,
)
from mlscale.report.figures import BarPlot, Figure, LinePlot, ReportStep
from mlscale.report.text import format_duration, format_metrics, is_number_like

if TYPE_CHECKING:
    from jinja2 import Template

# What it means where a command has not reached its goal, next to the title; a gate was not met by default.
_FAILED = {"monitor": "alert", "history": "alert", "retrain": "not promoted"}
_PHONE_CHARACTERS = 36  # of a table's row that a phone shows in one line
_PAGE_CHARACTERS, _GAP = 115, 3  # of one that a wide page shows; a gap between columns is as wide as so many
_TEXT_KINDS: Mapping[type, str] = {Heading: "heading", KeyNumbers: "numbers", CommandList: "commands"}
_RELATIVE = re.compile(r"(?![\w+.-]*:|/)[^\\]+")  # no scheme, no host: a link only to pages next to this one


def render_page(
    title: str,
    sentence: str,
    ok: bool,
    metrics: Mapping[str, float],
    artifacts: Mapping[str, str],
    figures: Sequence[Figure] = (),
    steps: Sequence[ReportStep] = (),
    overrides: Sequence[str] = (),
    failed: str = "",
    facts: Mapping[str, str] = MappingProxyType({}),
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
        failed: what it means that `ok` is false; by default what the command says then.
        facts: texts that are shown below the metrics, by name.
    """
    command = title.partition(" ")[0]
    # A first word that names a model is kept as `ref=`, and was typed without.
    typed = re.sub(r"^(mlscale \S+ )ref=", r"\1", shlex.join(["mlscale", command, *overrides]))
    return _load_template().render(
        title=_clean_text(title),
        sentence=_clean_text(sentence),
        ok=ok,
        failed=failed or _FAILED.get(command.partition("-")[0], "not met"),
        metrics=[(_clean_text(name), value) for name, value in format_metrics(metrics, command)],
        facts=[(_clean_text(name), _clean_text(text)) for name, text in facts.items()],
        artifacts=[(_clean_text(name), _clean_text(str(path))) for name, path in artifacts.items()],
        figures=[_prepare_plot(figure) for figure in figures],
        steps=[_prepare_step(step) for step in steps],
        typed=_clean_text(typed) if overrides else "",
        written=datetime.now().astimezone().strftime("%-d %B %Y, %H:%M %Z"),
    )


@cache
def _load_template() -> Template:
    """Return the template. Jinja, a dependency of torch, is imported only when a page is written."""
    from jinja2 import Environment, StrictUndefined

    # StrictUndefined: a misspelt name in the template raises an error instead of leaving a gap in the page.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((files("mlscale.report") / "page.html").read_text(encoding="utf-8"))


def _prepare_plot(figure: Figure) -> dict[str, Any]:
    """Return a figure's values for the template."""
    from mlscale.report.svg import COLOURS, draw_plot

    cleaned = figure.mask_texts(_clean_text)
    if isinstance(cleaned, Heading | KeyNumbers | CommandList):
        return {"kind": _TEXT_KINDS[type(cleaned)], **vars(cleaned)}
    if isinstance(cleaned, ImageBlock):
        source = encode_data_url(cleaned.png)
        return {"kind": "picture", **vars(cleaned), "source": source, "alt": cleaned.get_alt_text()}
    if isinstance(cleaned, TableBlock):
        return {"kind": "table", **_prepare_table(cleaned)}
    series = cleaned.series[:COLOURS] if isinstance(cleaned, LinePlot | BarPlot) else ()
    return {
        "kind": "plot",
        "title": cleaned.title,
        "svg": draw_plot(cleaned),
        "bars": isinstance(cleaned, BarPlot),
        "legend": [item.name for item in series] if len(series) > 1 else [],
    }


def _prepare_table(table: TableBlock) -> dict[str, Any]:
    """Return a table's values for the template: columns with a flag for numbers, which are aligned to the right, and
    rows with the class of their style."""
    columns = [
        # The first column names the rows: it is a text, also where all names are numbers.
        (name, index > 0 and all(is_number_like(row[index]) for row in table.rows))
        for index, name in enumerate(table.columns)
    ]
    widths = [max(map(len, cells)) for cells in zip(table.columns, *table.rows, strict=True)]
    styles = {**dict.fromkeys(table.faint, "faint"), **dict.fromkeys(table.marked, "out")}
    rows = [(row, styles.get(index, "")) for index, row in enumerate(table.rows)]
    return {
        **vars(table),
        "columns": columns,
        "rows": rows,
        "stacked": _needs_stacking(widths),
        "wide": sum(widths) + _GAP * len(widths) > _PAGE_CHARACTERS,
    }


def _needs_stacking(widths: Sequence[int]) -> bool:
    """Return True for a table that is wider than a phone: there each row becomes a list of names and values."""
    return len(widths) > 3 or (len(widths) == 3 and sum(widths) > _PHONE_CHARACTERS)


def _prepare_step(step: ReportStep) -> dict[str, Any]:
    cleaned = step.mask_texts(_clean_text)
    return {
        **vars(cleaned),
        "seconds": "" if cleaned.seconds is None else format_duration(cleaned.seconds),
        "figure": _prepare_plot(cleaned.figure) if cleaned.figure else None,
        "page": cleaned.page if _RELATIVE.fullmatch(cleaned.page) else "",
    }


def _clean_text(text: str) -> str:
    """Replace characters that HTML forbids, or that change the direction of text; line breaks are kept."""
    return "".join(character if character.isprintable() or character in "\n\t" else "�" for character in text)


_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_BODY = re.compile(r"<main>(.*)</main>", re.DOTALL)
_ROOT = re.compile(r"(?m)^(\s*)(?::root|body)\b")


def extract_cell_html(page: str) -> str:
    """Return the part of a page for a notebook's cell. All texts of the page are escaped, so its only `<main>` is
    that of the template.

    Args:
        page: the HTML of `mlscale.report.html.render_page`.
    """
    style, body = _STYLE.search(page), _BODY.search(page)
    assert style is not None
    assert body is not None
    # Nested rules apply below the one that holds them: neither the notebook nor another cell is styled.
    scoped = _ROOT.sub(r"\1&", style[1])
    return f'<style>.mlscale-result {{{scoped}}}</style><div class="mlscale-result"><main>{body[1]}</main></div>'
