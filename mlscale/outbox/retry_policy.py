"""When an item is sent again, and when it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlscale.outbox.outbox_item import OutboxItem


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
