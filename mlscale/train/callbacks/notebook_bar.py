"""The progress bar of a notebook: one HTML element that is updated, which every notebook shows without widgets."""

from __future__ import annotations

import sys
from html import escape
from typing import Any


def shell() -> Any:
    """Return IPython's shell where this process is a notebook's kernel; None elsewhere, a terminal too."""
    # Not imported: the kernel of a notebook has done so before any code of the user runs.
    ipython = sys.modules.get("IPython")
    found = ipython.get_ipython() if ipython is not None else None
    return found if hasattr(found, "kernel") else None


class Place:
    """The output of the notebook cell that trains, in which the bar is shown. All epochs share it."""

    def __init__(self) -> None:
        from IPython import display

        show: Any = display.display
        # raw: the dictionary is by MIME type already, not an object to be formatted.
        self._handle = show({"text/plain": ""}, raw=True, display_id=True)

    def show(self, html: str, plain: str) -> None:
        """Replace the present content."""
        self._handle.update({"text/html": html, "text/plain": plain}, raw=True)


class NotebookBar:
    """The part of tqdm that `Progress` uses.

    Args:
        total: batches of the epoch; None where it is unknown.
        desc: the text before the bar.
        place: the output in which it is shown.
    """

    def __init__(self, total: int | None, desc: str, place: Place) -> None:
        self.n = 0
        self._total, self._desc, self._place = total, desc, place
        self._postfix = ""
        self._show()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self._postfix = text
        self._show()

    def set_description_str(self, text: str) -> None:
        self._desc = text
        self._show()

    def close(self) -> None:
        self._show()

    def _show(self) -> None:
        count = f"{self.n}/{self._total or '?'}"
        bar = f'<progress value="{self.n}" max="{self._total}"></progress>' if self._total else "<progress></progress>"
        words = escape(", ".join(filter(None, (count, self._postfix))))
        self._place.show(
            f'<div style="font-variant-numeric: tabular-nums">{escape(self._desc)} {bar} {words}</div>',
            f"{self._desc}  {count}{', ' if self._postfix else ''}{self._postfix}",
        )
