"""How many passes over its window a challenger needs, from how fast its champion has learned."""

from __future__ import annotations

import csv
import math
from pathlib import Path

FEWEST_PASSES, MOST_PASSES = 20, 80
# Twice what the champion needed for most of what it learned: its challenger has a few hundred samples, which it sees
# between old ones that must not be forgotten. Most of it, as the last tenth takes the longest and depends on chance.
_FACTOR, _LEARNED = 2.0, 0.8


def choose_passes(history: Path, batch_size: int, window_samples: int) -> int:
    """Return the passes over a window, so that the challenger sees its samples twice as often in total as the champion
    saw samples until it had learned most; 20 at least, also where that is not known, and 80 at most.

    Args:
        history: the metrics that the champion's run has logged; it may be absent.
        batch_size: of the champion's run, over all devices and accumulation.
        window_samples: that the challenger is trained on.
    """
    needed = _FACTOR * _count_learning_steps(history) * batch_size / max(1, window_samples)
    return min(MOST_PASSES, max(FEWEST_PASSES, math.ceil(needed)))


def _count_learning_steps(history: Path) -> int:
    """Return the steps after which the validation loss had fallen by most of what it fell; 0 where it is not known."""
    try:
        with history.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        first = next(float(row["train/loss"]) for row in rows if row.get("train/loss"))
        losses = [(int(row["step"]) + 1, float(row["val/loss"])) for row in rows if row.get("val/loss")]
        best = min(loss for _, loss in losses)
    # Logged by other loggers, without a validation, or by a task of a user's own that names its losses otherwise.
    except (OSError, ValueError, KeyError, StopIteration):
        return 0
    limit = best + (1 - _LEARNED) * max(0.0, first - best)
    return next((step for step, loss in losses if loss <= limit), 0)
