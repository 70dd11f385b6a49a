"""`mlscale data ls`: what `data=` can read, and what the cache holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mlscale.config.schema.roots import find_roots
from mlscale.data.cache_folder import get_cache_dir
from mlscale.report import Result, TableBlock, format_size

_INDEXES = "index"


def list_sets(config_dirs: Sequence[str]) -> Result:
    """Return the options of the group `data`, and the sets of the cache."""
    # Files are read, and classes not imported: some need packages that are not installed.
    options = find_roots(config_dirs).files.get("data", {})
    rows = [(f"data={name}", _read_summary(file)) for name, file in sorted(options.items())]
    cached = _list_cached(get_cache_dir())
    return Result(
        command="data",
        ok=True,
        sentence=f"{len(rows)} options of data=, {len(cached)} prepared sets in {get_cache_dir()}",
        figures=(
            TableBlock("What data= can read", ("option", "what it is"), rows, terminal=True),
            TableBlock(
                "In the cache", ("set", "size"), [(name, format_size(size)) for name, size in cached], terminal=True
            ),
        ),
        details={"options": dict(rows), "cache": dict(cached)},
    )


def _read_summary(file: Path) -> str:
    """Return the first sentence of the comment at the top of an option's file."""
    lines = [line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return re.split(r"(?<=\.) (?=[A-Z])", " ".join(line for line in lines if not line.startswith("@package")))[0]


def _list_cached(folder: Path) -> list[tuple[str, int]]:
    """Return the sets of the cache with their bytes; the folder of indexes is none."""
    if not folder.is_dir():
        return []
    return [
        (path.name, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name != _INDEXES and not path.name.startswith(".")
    ]
