"""Initial weights: loads the weights of a file into a task before a fit, and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from mlscale.atomic_files import write_json
from mlscale.errors import MLScaleError
from mlscale.report.text import percent
from mlscale.runs.initial_source import Initial
from mlscale.train.initial_weights.name_matching import Match, few, match
from mlscale.train.initial_weights.weight_files import read

_LEAST = 0.5  # of the model's numbers: weights of which less fits are those of another model
REPORT = "logs/init.json"


def start_from(
    task: LightningModule,
    initial: Initial,
    *,
    classes: int | None = None,
    strict: bool = True,
    reading: Callable[[Path], Mapping[str, Tensor]] = read,
) -> tuple[Match, list[str]]:
    """Load the weights of a file into `task`. No random number is drawn.

    Args:
        reading: returns the tensors in a file, by name.
        classes: the model's number of classes or targets: a head with another number of them stays as it is.
        strict: all other weights must exist and fit; else those that fit are loaded.

    Returns:
        The match, and lines that report it.

    Raises:
        MLScaleError: the file has changed or is gone, is torn, holds no weights or more than values, or those of
            another model; then names are listed by kind.
    """
    try:
        initial.check()
        found = match(task.state_dict(), reading(initial.checkpoint), classes)
        _check(found, initial, strict=strict)
    except MLScaleError as error:
        error.unbuilt = True  # nothing has run yet
        raise
    # Strictness is checked above, with all names by kind; torch would refuse a replaced head.
    task.load_state_dict(dict(found.fits), strict=False)
    return found, _lines(found)


def keep(found: Match, folder: Path) -> None:
    """Write the match, with the names that fit and those that do not, to the run folder."""
    (folder / REPORT).parent.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT, found.document())


def _check(found: Match, initial: Initial, *, strict: bool) -> None:
    where = f"init_from: {initial.checkpoint}" if initial.source not in ("torchvision", "timm") else str(initial.name)
    of = f"the model that they are of: like={initial.run}" if initial.run else "the model that they are of: model=…"
    if strict and not found.whole:
        takes = (
            f"\ninit_strict=false, which takes the {int(100 * found.share)}% that fit" if found.share >= _LEAST else ""
        )
        raise MLScaleError(
            "the weights to start from do not fit the model",
            where=where,
            why="\n         ".join(found.differences()),
            fix=of + takes,
        )
    if found.values[0] and found.share < _LEAST:
        raise MLScaleError(
            f"only {percent(found.share, 0)} of the model's weights are in the file",
            where=where,
            why="\n         ".join(found.differences()),
            fix=of,
        )
    # Checked before the first step, where it would be reported as a divergence of this run.
    bad = [name for name, value in found.fits.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise MLScaleError(
            "the weights to start from are not finite",
            where=where,
            why=few(bad),
            fix="init_from=<an earlier checkpoint>: these weights are of a run that diverged",
        )


def _lines(found: Match) -> list[str]:
    count = len(found.fits)
    lines = [f"weights   {count} tensor{'s' * (count != 1)} loaded, {percent(found.share, 1)} of the model's values"]
    if found.classes:
        lines.append(
            f"head      {few(found.head)}: {found.classes[0]} outputs there, {found.classes[1]} here, so it begins anew"
        )
    if not found.whole:
        lines += [f"weights   {line}" for line in found.differences()] + [f"weights   all names: {REPORT}"]
    return lines
