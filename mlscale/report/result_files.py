"""Write results into a folder that is not a run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlscale.atomic_files import make_folders, write_json, write_text
from mlscale.report.html import page
from mlscale.report.result import Result


def keep_in(result: Result, folder: Path, title: str) -> Result:
    """Write a result into `folder`, as `<verb>.json` and a page next to it; return it with the page's path.

    Raises:
        MLScaleError: the folder can't be written to (exit code 5).
    """
    make_folders(folder)
    place = folder / f"{result.verb}.html"
    kept = replace(result, artifacts={**result.artifacts, "page": str(place)})
    shown = kept.as_dict()
    write_json(folder / f"{result.verb}.json", shown)
    about = (kept.sentence, kept.ok, shown["metrics"], shown["artifacts"])
    write_text(place, page(title, *about, kept.figures, kept.steps, shown["overrides"]))
    return kept
