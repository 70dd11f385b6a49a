"""A metric that a callback or a scheduler waits for, and that the task never logs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mlscale.config.metric_direction import find_nearest_metric, infer_direction
from mlscale.config.names.suggest import format_override
from mlscale.errors import MLScaleError

# Messages of Lightning's ModelCheckpoint, EarlyStopping and its handling of ReduceLROnPlateau: their exceptions have
# general classes, so only the text identifies them.
_MESSAGES = (
    re.compile(r"ModelCheckpoint\(monitor='(?P<name>.+?)'\)` could not find the monitored key"),
    re.compile(r"Early stopping conditioned on metric `(?P<name>.+?)` which is not available"),
    re.compile(r"ReduceLROnPlateau conditioned on metric (?P<name>\S+) which is not available"),
)


def explain_unlogged_metric(error: BaseException, metric: str | None, logged: Iterable[str]) -> MLScaleError | None:
    """Return the error to report when `error` means that a metric was not logged; None for any other error.

    Args:
        metric: the run's metric.
        logged: names of the metrics that were logged.
    """
    message_match = next((match for pattern in _MESSAGES if (match := pattern.search(str(error)))), None)
    if message_match is None:
        return None
    name, logged = message_match["name"], list(logged)
    if name.startswith("val/") and not any(other.startswith("val/") for other in logged):
        return MLScaleError(
            f"no '{name}' was logged",
            where="callbacks or scheduler: monitor",
            why="the run ends before its first validation, or no validation logs anything",
            fix="trainer.val_check_interval=1, a validation after each batch",
        )
    return build_unlogged_error(name, f"metric={name}" if name == metric else "callbacks or scheduler: monitor", logged)


def build_unlogged_error(name: str, where: str, logged: Iterable[str], during: str = "") -> MLScaleError:
    """Return the error of a metric that is monitored and never logged.

    Args:
        where: the callback or scheduler that monitors it.
        logged: names of the metrics that were logged.
        during: the part of the run in which they were; empty for all of it.
    """
    names = sorted(logged)
    near = find_nearest_metric(name, names)
    direction = infer_direction(near or "") or "<max or min>"
    set_near = f"{format_override('metric', near)} mode={direction}" if near else "~callbacks.checkpoint"
    if not where.startswith("metric="):
        set_near = f"write 'monitor: {near}' there" if near else "write 'monitor: <a metric that is logged>' there"
    return MLScaleError(
        f"no '{name}' was logged",
        where=where,
        why=f"{during + ' logged' if during else 'logged were'}: {', '.join(names) or 'no metrics at all'}",
        fix=f"{set_near}, or self.log('{name}', value) in the task"
        + "\ntrainer.num_sanity_val_steps=0, where a later validation logs it" * during.startswith("the sanity"),
    )
