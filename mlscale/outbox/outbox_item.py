"""One item of an outbox, and its file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlscale.atomic_files import read_json, write_json
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError


@dataclass(frozen=True)
class OutboxItem:
    """One item, as its file holds it.

    Attributes:
        body: the document to send.
        created, tried: when it was added, and the last attempt, seconds since 1970.
        attempts: all that failed.
        refusals: those of them that the recipient refused.
        why: the reason of the last one.
    """

    body: Mapping[str, Any]
    created: float
    tried: float = 0.0
    attempts: int = 0
    refusals: int = 0
    why: str = ""
    path: Path = field(default=Path(), compare=False)


def read_item(path: Path) -> OutboxItem:
    """Return the item of a file.

    Raises:
        MLScaleError: the file is gone, or is not that of an item.
    """
    document = read_json(path)
    expect_format("outbox_item", document, str(path))
    try:
        times = float(document["created"]), float(document["tried"])
        counts = int(document["attempts"]), int(document["refusals"])
        return OutboxItem(dict(document["body"]), *times, *counts, why=str(document["why"]), path=path)
    except (KeyError, TypeError, ValueError) as error:
        raise MLScaleError(
            f"can't read {path.name}", where=str(path), why=repr(error), fix=f"rm {shlex.quote(str(path))}"
        ) from error


def write_item(item: OutboxItem) -> None:
    """Write an item to its path."""
    document = {name: value for name, value in asdict(item).items() if name != "path"}
    write_json(item.path, {"format": get_format_tag("outbox_item"), **document})
