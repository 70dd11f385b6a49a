"""Initial weights: loads the weights of a file into a task before a fit, and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from mlscale.atomic_files import write_json
from mlscale.errors import MLScaleError
from mlscale.report.text import format_percent
from mlscale.runs.initial_source import InitialWeights
from mlscale.train.initial_weights.name_matching import WeightMatch, match_weights, summarise_names
from mlscale.train.initial_weights.weight_files import read_weight_file

_MIN_LOADED_SHARE = 0.5  # of the model's numbers: weights of which less fits are those of another model
REPORT = "logs/init.json"


def load_initial_weights(
    task: LightningModule,
    initial: InitialWeights,
    *,
    classes: int | None = None,
    strict: bool = True,
    read_weights: Callable[[Path], Mapping[str, Tensor]] = read_weight_file,
) -> tuple[WeightMatch, list[str]]:
    """Load the weights of a file into `task`. No random number is drawn.

    Args:
        read_weights: returns the tensors in a file, by name.
        classes: the model's number of classes or targets: a head with another number of them stays as it is.
        strict: all other weights must exist and fit; else those that fit are loaded.

    Returns:
        The match, and lines that report it.

    Raises:
        MLScaleError: the file has changed or is gone, is torn, holds no weights or more than values, or those of
            another model; then names are listed by kind.
    """
    try:
        initial.check_unchanged()
        weight_match = match_weights(task.state_dict(), read_weights(initial.checkpoint), classes)
        _check_match(weight_match, initial, strict=strict)
    except MLScaleError as error:
        error.unbuilt = True  # nothing has run yet
        raise
    # Strictness is checked above, with all names by kind; torch would refuse a replaced head.
    task.load_state_dict(dict(weight_match.fits), strict=False)
    return weight_match, _format_match_lines(weight_match)


def write_match_report(weight_match: WeightMatch, folder: Path) -> None:
    """Write the match, with the names that fit and those that do not, to the run folder."""
    (folder / REPORT).parent.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT, weight_match.build_match_document())


def _check_match(weight_match: WeightMatch, initial: InitialWeights, *, strict: bool) -> None:
    where = f"init_from: {initial.checkpoint}" if initial.source not in ("torchvision", "timm") else str(initial.name)
    of = f"like={initial.run}" if initial.run else "model=<the model that they are of>"
    if strict and not weight_match.is_complete:
        takes = (
            f"\ninit_strict=false, which takes the {int(100 * weight_match.share)}% that fit"
            if weight_match.share >= _MIN_LOADED_SHARE
            else ""
        )
        raise MLScaleError(
            "the weights to start from do not fit the model",
            where=where,
            why="\n         ".join(weight_match.list_differences()),
            fix=of + takes,
        )
    if weight_match.values[0] and weight_match.share < _MIN_LOADED_SHARE:
        raise MLScaleError(
            f"only {format_percent(weight_match.share, 0)} of the model's weights are in the file",
            where=where,
            why="\n         ".join(weight_match.list_differences()),
            fix=of,
        )
    # Checked before the first step, where it would be reported as a divergence of this run.
    bad = [name for name, value in weight_match.fits.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise MLScaleError(
            "the weights to start from are not finite",
            where=where,
            why=summarise_names(bad),
            fix="init_from=<an earlier checkpoint>: these weights are of a run that diverged",
        )


def _format_match_lines(weight_match: WeightMatch) -> list[str]:
    count = len(weight_match.fits)
    lines = [
        f"weights   {count} tensor{'s' * (count != 1)} loaded, "
        f"{format_percent(weight_match.share, 1)} of the model's values"
    ]
    if weight_match.classes:
        lines.append(
            f"head      {summarise_names(weight_match.head)}: {weight_match.classes[0]} outputs in the source, "
            f"{weight_match.classes[1]} here, so it is re-initialised"
        )
    if not weight_match.is_complete:
        lines += [f"weights   {line}" for line in weight_match.list_differences()] + [f"weights   all names: {REPORT}"]
    return lines
