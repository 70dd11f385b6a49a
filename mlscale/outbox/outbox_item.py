"""One item of an outbox, and its file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
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


class ItemRefusedError(Exception):
    """The recipient refuses an item for good, so the items behind it need not wait; raised by what sends."""


@dataclass(frozen=True)
class RetryPolicy:
    """When an item is tried again, and when it is given up.

    Attributes:
        backoff_s: seconds after the first failure, the second one, …; the last value for all later ones. Empty: none.
        max_refusals: attempts of an item that the recipient refuses; None for no limit. An absent recipient refuses
            nothing.
        max_age_s: seconds after which an item that has failed is given up; None for no limit.
    """

    backoff_s: Sequence[float] = (1.0, 2.0, 5.0, 15.0, 30.0)
    max_refusals: int | None = None
    max_age_s: float | None = None

    def get_delay(self, item: OutboxItem, now: float) -> float:
        """Return the seconds until an item may be tried again."""
        if not item.attempts or not self.backoff_s:
            return 0.0
        pause = self.backoff_s[min(item.attempts, len(self.backoff_s)) - 1]
        # At most the pause: a clock that was set back must not stop the sending.
        return min(pause, max(0.0, item.tried + pause - now))

    def gives_up(self, item: OutboxItem, now: float) -> bool:
        """Return True if an item that has failed is not tried again."""
        refused = self.max_refusals is not None and item.refusals >= self.max_refusals
        return refused or (self.max_age_s is not None and now - item.created >= self.max_age_s)
