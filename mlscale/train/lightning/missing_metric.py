"""A metric that a callback or a scheduler waits for, and that the task never logs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mlscale.config.metric_direction import direction, nearest_metric
from mlscale.errors import MLScaleError

# Messages of Lightning's ModelCheckpoint, EarlyStopping and its handling of ReduceLROnPlateau: their exceptions have
# general classes, so only the text identifies them.
_SAYS = (
    re.compile(r"ModelCheckpoint\(monitor='(?P<name>.+?)'\)` could not find the monitored key"),
    re.compile(r"Early stopping conditioned on metric `(?P<name>.+?)` which is not available"),
    re.compile(r"ReduceLROnPlateau conditioned on metric (?P<name>\S+) which is not available"),
)


def unlogged(error: BaseException, metric: str | None, logged: Iterable[str]) -> MLScaleError | None:
    """Return the error to report when `error` means that a metric was not logged; None for any other error.

    Args:
        metric: the run's metric.
        logged: names of the metrics that were logged.
    """
    found = next((match for says in _SAYS if (match := says.search(str(error)))), None)
    if found is None:
        return None
    name = found["name"]
    return not_logged(name, f"metric={name}" if name == metric else "callbacks or scheduler: monitor", logged)


def not_logged(name: str, where: str, logged: Iterable[str], during: str = "") -> MLScaleError:
    """Return the error of a metric that is monitored and never logged.

    Args:
        where: the callback or scheduler that monitors it.
        logged: names of the metrics that were logged.
        during: the part of the run in which they were; empty for all of it.
    """
    there = sorted(logged)
    near = nearest_metric(name, there)
    set_near = f"metric={near} mode={direction(near) or '<max or min>'}" if near else "~callbacks.checkpoint"
    if not where.startswith("metric="):
        set_near = f"monitor {near} there" if near else "monitor a metric that is logged"
    return MLScaleError(
        f"no '{name}' was logged",
        where=where,
        why=f"{during + ' logged' if during else 'logged were'}: {', '.join(there) or 'no metrics at all'}",
        fix=f"{set_near}, or self.log('{name}', value) in the task",
    )
