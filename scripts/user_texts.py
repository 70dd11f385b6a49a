"""Banned words in names and in what users read: texts in the code, docs, config files and schemas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.measured_code import Place
from scripts.naming_rules import BANNED, BANNED_ALONE

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PAGES = ("*.md", "docs/*.md", "conf/**/*.yaml", "recipes/**/*.yaml", "recipes/**/*.md", "mlscale/contracts/*.json")
_DATED = ("CHANGELOG.md",)  # what was said of an earlier version stays as it was
_CODE = re.compile(r"`[^`\n]*`")  # names are counted where they are defined

EXCEPTIONS = (
    ("mlscale/report/", "figure", "a plot, as in matplotlib"),
    ("mlscale/report/", "figures", "plots"),
    ("mlscale/report/", "Figure", "a plot"),
    ("CONTRIBUTING.md", "verb", "the part of speech"),
    ("mlscale/commands/env/environment_checks.py", "says", "a key of `mlscale env output=json`"),
    ("mlscale/contracts/compressed.json", "figures", "a stored key"),
    ("mlscale/contracts/result.json", "verb", "a stored key"),
    ("mlscale/contracts/run.json", "verb", "a stored key"),
    ("mlscale/contracts/turn.json", "figures", "a stored key"),
    ("mlscale/retrain/journal.py", "figures", "a key of the journal of retraining"),
    ("mlscale/runs/overview.py", "verb", "a key of `mlscale runs ls output=json`"),
    ("conf/data/webdataset.yaml", "beside", "a value of `data.index`"),
    ("conf/data/dali.yaml", "beside", "a value of `data.index`"),
    ("conf/data/tfrecord.yaml", "beside", "a value of `data.index`"),
    ("docs/data.md", "beside", "a value of `data.index`"),
)
"""At most 20: the folder or file, the name or the words of a text that may stay there, and why."""


def banned_names(names: Sequence[Place]) -> Iterator[Place]:
    """Yield the definitions of names that hold a banned word, each name once a file."""
    seen = set()
    for place in names:
        words = _CAMEL.sub("_", place.text).lower().strip("_")
        instead = BANNED_ALONE.get(words) or next(
            (rule.instead for rule in BANNED if rule.name and rule.name.search(words)), None
        )
        if instead and not _is_exception(place.path, place.text) and (place.path, place.text) not in seen:
            seen.add((place.path, place.text))
            yield Place(place.path, place.line, f"{place.text} -> {instead}")


def banned_texts(root: Path, texts: Sequence[Place]) -> Iterator[Place]:
    """Yield the banned words and phrases in texts of the code and in the pages that users read."""
    for place in texts:
        if " " in place.text:  # prose; what has no space is a key or a format
            yield from _in_text(place)
    for pattern in _PAGES:
        for path in sorted(root.glob(pattern)):
            if path.name in _DATED:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield from _in_text(Place(path.relative_to(root).as_posix(), number, line))


def _in_text(place: Place) -> Iterator[Place]:
    prose = _CODE.sub("``", place.text)
    for rule in BANNED:
        for match in rule.text.finditer(prose):
            if not _is_exception(place.path, match[0]):
                around = " ".join(prose[max(0, match.start() - 30) : match.end() + 30].split())
                yield Place(place.path, place.line, f"{match[0]} -> {rule.instead}: {around}")


def _is_exception(path: str, text: str) -> bool:
    return any(path.startswith(prefix) and text == allowed for prefix, allowed, _ in EXCEPTIONS)
