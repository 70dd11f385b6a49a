"""A metric that a callback or a scheduler waits for, and that the task never logs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from mlscale.errors import MLScaleError

# What Lightning's ModelCheckpoint, EarlyStopping and its handling of ReduceLROnPlateau say.
_SAYS = (
    re.compile(r"ModelCheckpoint\(monitor='(?P<name>.+?)'\)` could not find the monitored key"),
    re.compile(r"Early stopping conditioned on metric `(?P<name>.+?)` which is not available"),
    re.compile(r"ReduceLROnPlateau conditioned on metric (?P<name>\S+) which is not available"),
)


def unlogged(error: BaseException, metric: str, logged: Iterable[str]) -> MLScaleError | None:
    """What to tell when `error` means that a metric was not logged; None for any other error.

    Args:
        metric: the run's metric.
        logged: names of what was.
    """
    found = next((match for says in _SAYS if (match := says.search(str(error)))), None)
    if found is None:
        return None
    name, there = found["name"], sorted(logged)
    near = difflib.get_close_matches(name, there, 1) or [item for item in there if item.endswith("loss")][:1]
    return MLScaleError(
        f"no '{name}' was logged",
        where=f"metric={name}" if name == metric else "callbacks or scheduler: monitor",
        why=f"logged were: {', '.join(there) or 'no metrics at all'}",
        fix=f"metric={near[0]}{' mode=min' if near[0].endswith('loss') else ''}, "
        f"or self.log('{name}', value) in the task"
        if near
        else f"self.log('{name}', value) in the task, or ~callbacks.checkpoint",
    )
