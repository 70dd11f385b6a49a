"""Going on with a run that was cut short: which one, whether it may be, and from which checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlscale.errors import MLScaleError
from mlscale.runs import checkpoints
from mlscale.runs.find import find, unfinished
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import config_hash, differing

AUTO = "auto"


@dataclass(frozen=True)
class GoingOn:
    """A run to go on with.

    Attributes:
        folder: the run.
        checkpoint: where to go on from; None where it was killed before it saved anything, and starts over.
        step: the optimizer step that the checkpoint was saved after.
        lines: what there is to say about it.
    """

    folder: RunFolder
    checkpoint: Path | None
    step: int
    lines: tuple[str, ...]


def to_go_on(resume: str, config_yaml: str, code: str | None, root: Path) -> RunFolder | None:
    """The run that `resume` means: the one that it names, or with 'auto' the last unfinished one of this config and
    code, if there is one.

    Raises:
        MLScaleError: there is no such run, it has ended, or its config differs in what it computes.
    """
    if resume == AUTO:
        return unfinished(config_hash(config_yaml), code, root)
    run = find(resume, root)
    if run.run["config_hash"] != config_hash(config_yaml):
        keys = differing(yaml.safe_load(run.config_text), yaml.safe_load(config_yaml))
        raise MLScaleError(
            f"with other settings this would be another run than {run.path.name}",
            where=", ".join(keys[:5]),
            why="a run goes on as it began; only devices, trackers, names and places may change",
            fix="leave them out, or start a new run",
        )
    return run


def open_attempt(run: RunFolder, world_size: int, code: str | None) -> GoingOn:
    """Begin another attempt at a run that this process holds.

    Raises:
        MLScaleError: it has ended, and there is nothing to go on with.
    """
    status = run.status
    if status in ("done", "diverged"):
        why = "" if status == "done" else "from the same checkpoint, on the same samples, it would again"
        raise MLScaleError(
            f"the run {run.path.name} {'is done' if status == 'done' else 'has diverged'}",
            where=str(run.path),
            why=why,
            fix="mlscale runs show " + run.id + (", or a new run with other settings" if why else ""),
        )
    checkpoint, left_out = checkpoints.latest_valid(run.path / "checkpoints")
    record = checkpoints.look(checkpoint).record if checkpoint else None
    step = record.step if record else 0
    before = run.derived.get("world_size")
    lines = [*left_out, _from(run, checkpoint, step)]
    if before not in (None, world_size):
        lines.append(
            f"layout    {before} process{_es(before)} before, {world_size} now: the same global batches, "
            "but sums in another order, so not the same bits"
        )
    if code != (run.run["code"] or {}).get("digest"):
        lines.append("code      has changed since the run began: it goes on with today's")
    run.attempt()
    return GoingOn(run, checkpoint, step, tuple(lines))


def unfinished_line(run: RunFolder) -> str:
    """One line that names an unfinished run, and the command to go on."""
    found = [stored.record for stored in checkpoints.stored(run.path / "checkpoints") if stored.record]
    step = f", saved at step {max(record.step for record in found):,}" if found else ""
    return f"unfinished {run.path.name} has the same config{step}; go on with it: mlscale runs resume {run.id}"


def _from(run: RunFolder, checkpoint: Path | None, step: int) -> str:
    number = len(run.run["attempts"]) + 1
    if checkpoint is None:
        return f"resume    {run.path.name}, attempt {number}: nothing was saved, so from the beginning"
    return f"resume    {run.path.name}, attempt {number}: from {checkpoint.name}, step {step:,}"


def _es(count: Any) -> str:
    return "" if count == 1 else "es"
