"""How many passes over its window a challenger needs, from how fast its champion has learned."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

FEWEST_PASSES, MOST_PASSES = 20, 80
# Twice what the champion needed for most of what it learned: its challenger has a few hundred samples, which it sees
# between old ones that must not be forgotten. Most of it, as the last tenth takes the longest and depends on chance.
_FACTOR, _LEARNED = 2.0, 0.8
# A model that has seen its own data once or twice learned a window by heart in 20 passes.
_TIMES_OF_CHAMPION = 5


def choose_passes(history: Path, batch_size: int, window_samples: int, *, most: int | None = None) -> int:
    """Return the passes over a window, so that the challenger sees its samples twice as often in total as the champion
    saw samples until it had learned most; 20 at least, also where that is not known, and 80 at most. Not more than five
    times the champion's own epochs.

    Args:
        history: the metrics that the champion's run has logged; it may be absent.
        batch_size: of the champion's run, over all devices and accumulation.
        window_samples: that the challenger is trained on.
        most: passes of this task type, if it has a limit of its own.
    """
    rows = _read_rows(history)
    needed = _FACTOR * _count_learning_steps(rows) * batch_size / max(1, window_samples)
    return min(most or MOST_PASSES, _TIMES_OF_CHAMPION * _count_epochs(rows), max(FEWEST_PASSES, math.ceil(needed)))


def _read_rows(history: Path) -> list[dict[str, str]]:
    try:
        with history.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    # Logged by other loggers alone.
    except (OSError, ValueError):
        return []


def _count_epochs(rows: Sequence[Mapping[str, str]]) -> int:
    """Return the epochs of the run; where they are not known, as many as limit nothing."""
    try:
        return 1 + max(int(row["epoch"]) for row in rows if row.get("epoch"))
    except ValueError:
        return MOST_PASSES


def _count_learning_steps(rows: Sequence[Mapping[str, str]]) -> int:
    """Return the steps after which the validation loss had fallen by most of what it fell; 0 where it is not known."""
    try:
        first = next(float(row["train/loss"]) for row in rows if row.get("train/loss"))
        losses = [(int(row["step"]) + 1, float(row["val/loss"])) for row in rows if row.get("val/loss")]
        best = min(loss for _, loss in losses)
    # Without a validation, or of a task of a user's own that names its losses otherwise.
    except (ValueError, KeyError, StopIteration):
        return 0
    limit = best + (1 - _LEARNED) * max(0.0, first - best)
    return next((step for step, loss in losses if loss <= limit), 0)
