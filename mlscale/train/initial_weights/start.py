"""Initial weights: loads the weights of a file into a task before a fit, and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn.parameter import is_lazy

from mlscale.atomic_files import write_json
from mlscale.errors import MLScaleError
from mlscale.report.text import format_percent
from mlscale.runs.initial_source import InitialWeights
from mlscale.train.initial_weights.weight_files import read_weight_file
from mlscale.train.torch_compile import get_uncompiled_name

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


_WRAPPERS = ("model", "module", "net", "network", "backbone", "encoder")  # attributes under which modules hold a model
# Wrappers inside each other, such as `module.model.` of a task under DDP.
_MAX_WRAPPERS = 3
_COUNTERS = ".num_batches_tracked"  # which files from before 2019 lack, and torch does not need
_MAX_SHOWN_NAMES = 5  # names of a kind


@dataclass(frozen=True)
class WeightMatch:
    """The result of matching a file's weights with a model.

    Attributes:
        fits: the tensors that are loaded, by their names in the model.
        head: names that keep their initial values, since only the number of classes differs.
        classes: that number in the file and in the model; None where no head is replaced.
        missing: names of the model that the file lacks.
        unexpected: names that the model lacks, as they are in the file.
        shapes: names of the model with another shape in the file, with both shapes.
        values: how many numbers the model has but for its head, and how many of them are loaded.
    """

    fits: Mapping[str, Tensor]
    head: tuple[str, ...]
    classes: tuple[int, int] | None
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: Mapping[str, str]
    values: tuple[int, int]

    @property
    def is_complete(self) -> bool:
        """True if every weight but the head's fits, and the file holds no others."""
        return not (self.missing or self.unexpected or self.shapes)

    @property
    def share(self) -> float:
        """The share of the model's numbers, its head left out, that are loaded."""
        return self.values[1] / self.values[0] if self.values[0] else 0.0

    def list_differences(self) -> list[str]:
        """Return the names that do not fit, a line for each kind."""
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": [f"{name} {both}" for name, both in self.shapes.items()],
        }
        return [f"{kind}: {summarise_names(names)}" for kind, names in kinds.items() if names]

    def build_match_document(self) -> dict[str, Any]:
        """Return all of it but the tensors, for JSON."""
        return {
            "loaded": sorted(self.fits),
            "head": list(self.head),
            "classes": list(self.classes) if self.classes else None,
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "shapes": dict(self.shapes),
            "share_of_values": self.share,
        }


def match_weights(has: Mapping[str, Tensor], given: Mapping[str, Tensor], classes: int | None) -> WeightMatch:
    """Return how the tensors of `given` fit the model whose `state_dict` is `has`.

    Prefixes that wrappers add (`module.`, `model.`, `_orig_mod.`) are left out or put before, whichever matches most.

    A head is recognised by its shapes alone: tensors that differ in their first size only, all of them from the same
    number to the model's number of classes.

    Args:
        classes: the model's number of classes, or of targets; None where it has none, so that nothing is replaced.
    """
    renamed = _rename_to_match(has, given)
    # A lazy weight has no shape yet: it takes the file's.
    wrong = {
        name: (_get_shape(renamed[name][1]), _get_shape(has[name]))
        for name in has
        if name in renamed and not is_lazy(has[name]) and _get_shape(renamed[name][1]) != _get_shape(has[name])
    }
    head = _find_replaced_head(wrong, classes)
    missing = [name for name in has if name not in renamed]
    fits = {name: renamed[name][1] for name in has if name in renamed and name not in wrong}
    counters = {n for n in missing if n.endswith(_COUNTERS) and n.replace(_COUNTERS, ".running_mean") in fits}
    sizes = {name: value.numel() for name, value in has.items() if not is_lazy(value) and name not in head}
    return WeightMatch(
        fits=fits,
        head=head,
        classes=(wrong[head[0]][0][0], wrong[head[0]][1][0]) if head else None,
        missing=tuple(name for name in missing if name not in counters),
        unexpected=tuple(in_file for name, (in_file, _) in renamed.items() if name not in has),
        shapes={
            name: f"{in_file} and not {in_model}" for name, (in_file, in_model) in wrong.items() if name not in head
        },
        values=(sum(sizes.values()), sum(size for name, size in sizes.items() if name in fits)),
    )


def summarise_names(names: Collection[str]) -> str:
    """Return the first names as text, with the number of the others."""
    shown = ", ".join(list(names)[:_MAX_SHOWN_NAMES])
    return f"{shown} and {len(names) - _MAX_SHOWN_NAMES} more" if len(names) > _MAX_SHOWN_NAMES else shown


def _rename_to_match(has: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Return `given` renamed so that most names are in `has`, each with its name in the file."""
    names = {get_uncompiled_name(name): name for name in given}
    best: dict[str, str] = names
    most = -1
    for strip in _find_prefixes(names):
        for add in _find_prefixes(has):
            tried = {_replace_prefix(name, strip, add): original for name, original in names.items()}
            count = sum(name in has for name in tried)
            # Renaming must not make two names one. On a tie the shorter prefixes win: they are tried first.
            if count > most and len(tried) == len(names):
                best, most = tried, count
    return {name: (original, given[original]) for name, original in best.items()}


def _find_prefixes(names: Iterable[str]) -> list[str]:
    """Return the prefixes that wrappers may have added to these names, shortest first, the empty one included."""
    prefixes = [""]
    for _ in range(_MAX_WRAPPERS):
        heads = {name.removeprefix(prefixes[-1]).partition(".")[0] for name in names if name.startswith(prefixes[-1])}
        word = next((word for word in _WRAPPERS if word in heads), None)
        if word is None:
            break
        prefixes.append(f"{prefixes[-1]}{word}.")
    return prefixes


def _replace_prefix(name: str, strip: str, add: str) -> str:
    return add + name.removeprefix(strip) if name.startswith(strip) else name


def _find_replaced_head(
    wrong: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]], classes: int | None
) -> tuple[str, ...]:
    pairs = set()
    for file_shape, model_shape in wrong.values():
        if not file_shape or len(file_shape) != len(model_shape) or file_shape[1:] != model_shape[1:]:
            return ()
        pairs.add((file_shape[0], model_shape[0]))
    # All from one number of classes to the model's own: any other difference is another model.
    return tuple(wrong) if len(pairs) == 1 and next(iter(pairs))[1] == classes else ()


def _get_shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)
