"""Write results into a folder that is not a run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlscale.atomic_files import make_folders, write_json, write_text
from mlscale.report.html import render_page
from mlscale.report.result import Result, select_facts


def save_result_in(result: Result, folder: Path, title: str) -> Result:
    """Write a result into `folder`, as `<command>.json` and a page next to it; return it with the page's path.

    Raises:
        MLScaleError: the folder can't be written to (exit code 5).
    """
    make_folders(folder)
    page_path = folder / f"{result.command}.html"
    saved = replace(result, artifacts={**result.artifacts, "page": str(page_path)})
    shown = saved.as_dict()
    write_json(folder / f"{result.command}.json", shown)
    about = (saved.sentence, saved.ok, shown["metrics"], shown["artifacts"])
    facts = select_facts(saved.details)
    write_text(page_path, render_page(title, *about, saved.figures, saved.steps, shown["overrides"], facts=facts))
    return saved
