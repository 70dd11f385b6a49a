"""The nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CUTOFF = 0.6  # finds every single-edit typo of names of three letters and more


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that was most likely meant, or None. Case, `-` and `_` don't count."""
    plain = {_plain(item): item for item in names}
    best = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=_CUTOFF)
    return plain[best[0]] if best else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
