"""The forms that a typed value takes in the templates of `foreign_names.yaml`: `{beta1}`, `{part_of_lr}`.

A form is computed from the value and from the config; None where it can't be, and then the template is not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress

from mlscale.config.checks.job_facts import TASK_METRICS
from mlscale.config.suggestions.config_names import Names
from mlscale.config.suggestions.foreign_names import count_devices
from mlscale.config.suggestions.name_distance import fold_name

_BETAS = [0.9, 0.999]  # of torch's Adam, where the config sets none
_DIV_FACTOR = 25.0  # of torch's OneCycleLR: its first rate is max_lr by this
_DIGITS = 6
_STAGE = re.compile(r"^(eval|val|valid|validation|test)[_/]|/best$|_best$")
_OTHER_NAMES = {"acc": "accuracy", "top1": "accuracy", "crossentropy": "loss", "ppl": "perplexity", "iou": "miou"}
_DURATION = re.compile(r"(\d+) ?(?:ep|epochs?)")


def convert_typed(convert: str, value: object, names: Names) -> object:
    """Return what was typed in the form that a whole entry of the table asks for; None where it has no such form."""
    if convert == "list" and not isinstance(value, list):
        return [value]
    if convert == "global_batch" and names.batches != 1:
        return value * names.batches if isinstance(value, int) else None
    if convert in ("count", "indices"):
        count = count_devices(value)
        return None if convert == "indices" and count == value else count
    # `fraction=1` is all of it; here the int would be one batch.
    return 1.0 if convert == "part" and _is_number(value) and value == 1 else value


def compute_form(name: str, value: object, names: Names) -> object:
    """Return the form of a value that a template names; None where it can't be computed."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)  # YAML reads 1e-5 as a text
    return _FORMS[name](value, names)


def is_form(name: str) -> bool:
    return name in _FORMS


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_number(path: str, names: Names) -> float | None:
    value = names.values(path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _replace_beta(index: int) -> Callable[[object, Names], object]:
    def replace_beta(value: object, names: Names) -> object:
        current = names.values("optimizer.betas")
        betas = list(current) if isinstance(current, list) and len(current) == len(_BETAS) else list(_BETAS)
        betas[index] = value
        return betas if _is_number(value) else None

    return replace_beta


def _get_part(value: object, names: Names) -> object:
    """Return a fraction: of the run, or of the learning rate."""
    return value if isinstance(value, float) and 0 <= value < 1 else None


def _divide_by_lr(value: object, names: Names) -> float | None:
    """Return the part of the learning rate that a rate is."""
    lr = _read_number("optimizer.lr", names)
    if not lr or not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= lr:
        return None
    return _round(value / lr)


def _invert_part(part: object, names: Names) -> float | None:
    """Return OneCycle's `final_div_factor` for the part of the rate that is left at the end."""
    if not isinstance(part, float) or not 0 < part <= 1:
        return None
    return _round(1 / (part * (_read_number("scheduler.div_factor", names) or _DIV_FACTOR)))


def _divide_by_epochs(value: object, names: Names) -> float | None:
    """Return the part of the run that a number of epochs is."""
    if not names.epochs or not isinstance(value, int | float) or isinstance(value, bool):
        return None
    part = value / names.epochs
    return round(part, _DIGITS) if 0 < part < 1 else None


def _divide_by_steps(value: object, names: Names) -> float | None:
    """Return the part of the run that a number of optimizer steps is, where the run is as long as `max_steps`."""
    total = _read_number("trainer.max_steps", names)
    if not isinstance(value, int) or isinstance(value, bool) or not total or not 0 < value < total:
        return None
    return round(value / total, _DIGITS)


def _count_run_epochs(value: object, names: Names) -> int | None:
    """Return the epochs that a part of the run is, where that is a whole number."""
    count = value * names.epochs if names.epochs and isinstance(value, float) else 0
    return round(count) if count >= 1 and abs(count - round(count)) < 10**-_DIGITS else None


def _count_part_epochs(value: object, names: Names) -> float | None:
    """Return the part of an epoch that a part of the run is."""
    count = value * names.epochs if names.epochs and isinstance(value, float) else 0
    return round(count, _DIGITS) if 0 < count < 1 else None


def _unwrap_single(value: object, names: Names) -> object:
    """Return the only value of a list, or a single value."""
    single = value[0] if isinstance(value, list) and len(value) == 1 else value
    return None if isinstance(single, list) else single


def _get_side(value: object, names: Names) -> object:
    """Return the side of a square image: the last number of `3 224 224`."""
    square = isinstance(value, list) and len(value) in (2, 3) and value[-1] == value[-2]
    return value[-1] if isinstance(value, list) and square else None


def _find_metric(value: object, names: Names) -> str | None:
    """Return the metric of the task that a name is one of: `eval_accuracy` is val/accuracy."""
    name = _unwrap_single(value, names)
    logged = TASK_METRICS.get(names.facts.task, ("loss",))
    folded = fold_name(_STAGE.sub("", _STAGE.sub("", str(name).lower())))
    folded = fold_name(_OTHER_NAMES.get(folded, folded))
    return next((f"val/{metric}" for metric in logged if fold_name(metric) == folded), None)


def _read_duration(value: object, names: Names) -> int | None:
    """Return the epochs of a duration as Composer writes it: `10ep`."""
    match = _DURATION.fullmatch(str(value))
    return int(match[1]) if match else None


def _round(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


_FORMS: Mapping[str, Callable[[object, Names], object]] = {
    "beta1": _replace_beta(0),
    "beta2": _replace_beta(1),
    "part": _get_part,
    "part_of_lr": _divide_by_lr,
    "divisor": _invert_part,
    "divisor_of_lr": lambda value, names: _invert_part(_divide_by_lr(value, names), names),
    "part_of_epochs": _divide_by_epochs,
    "part_of_steps": _divide_by_steps,
    "run_epochs": _count_run_epochs,
    "part_of_epoch": _count_part_epochs,
    "single": _unwrap_single,
    "side": _get_side,
    "metric": _find_metric,
    "duration": _read_duration,
}
