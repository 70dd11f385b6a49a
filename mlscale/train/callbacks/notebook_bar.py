"""The progress bar of a notebook: one HTML element that is updated, which every notebook shows without widgets."""

from __future__ import annotations

import sys
from html import escape
from typing import Any


def find_notebook_shell() -> Any:
    """Return IPython's shell where this process is a notebook's kernel; None elsewhere, a terminal too."""
    # A kernel has imported both before any code of the user runs. IPython alone is not enough: a library may be at its
    # import in another thread (MLflow's client is), and what `sys.modules` has of it then is a part. `import` waits.
    if "ipykernel" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    active_shell = get_ipython()
    return active_shell if hasattr(active_shell, "kernel") else None


class NotebookOutput:
    """The output of the notebook cell that trains, in which the bar is shown. All epochs share it."""

    def __init__(self) -> None:
        from IPython import display

        show: Any = display.display
        # raw: the dictionary is by MIME type already, not an object to be formatted.
        self._handle = show({"text/plain": ""}, raw=True, display_id=True)

    def update_content(self, html: str, plain: str) -> None:
        """Replace the present content."""
        self._handle.update({"text/html": html, "text/plain": plain}, raw=True)


class NotebookBar:
    """The part of tqdm that `Progress` uses.

    Args:
        total: batches of the epoch; None where it is unknown.
        desc: the text before the bar.
        output: the output in which it is shown.
    """

    def __init__(self, total: int | None, desc: str, output: NotebookOutput) -> None:
        self.n = 0
        self._total, self._desc, self._output = total, desc, output
        self._postfix = ""
        self._update_output()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self._postfix = text
        self._update_output()

    def set_description_str(self, text: str) -> None:
        self._desc = text
        self._update_output()

    def close(self) -> None:
        self._update_output()

    def _update_output(self) -> None:
        count = f"{self.n}/{self._total or '?'}"
        bar = f'<progress value="{self.n}" max="{self._total}"></progress>' if self._total else "<progress></progress>"
        words = escape(", ".join(filter(None, (count, self._postfix))))
        self._output.update_content(
            f'<div style="font-variant-numeric: tabular-nums">{escape(self._desc)} {bar} {words}</div>',
            f"{self._desc}  {count}{', ' if self._postfix else ''}{self._postfix}",
        )
