"""The script that a new process imports again."""

from __future__ import annotations

import ast
import sys
from functools import lru_cache
from pathlib import Path


def find_unguarded_script() -> Path | None:
    """Return the script of the main process, if what it does would be done again by each process that it starts."""
    main = sys.modules.get("__main__")
    # With a spec it was started by `python -m`, whose modules are guarded; without a file it is a notebook or -c.
    if main is None or getattr(main, "__spec__", None) is not None or not getattr(main, "__file__", None):
        return None
    path = Path(str(main.__file__))
    return None if _has_guard(path) else path


@lru_cache(maxsize=1)
def _has_guard(path: Path) -> bool:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        # Not Python source, such as a frozen application: multiprocessing has rules of its own there.
        return True
    return any(
        isinstance(node, ast.If)
        and any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))
        for node in tree.body
    )
