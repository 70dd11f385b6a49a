"""The forms that a typed value takes in the templates of `foreign_names.yaml`: `{beta1}`, `{part_of_lr}`.

A form is computed from the value and from the config; None where it can't be, and then the template is not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from mlscale.config.names.foreign_names import count_devices
from mlscale.config.names.name_distance import fold_name
from mlscale.config.schema.job_facts import TASK_METRICS
from mlscale.config.suggestions.config_names import Names

ADAM_BETAS = [0.9, 0.999]  # of torch's Adam, where the config sets none
_DIV_FACTOR = 25.0  # of torch's OneCycleLR: its first rate is max_lr by this
# Of a computed setting: more digits would be those of the division, not of what was typed.
_DIGITS = 6
_STAGE = re.compile(r"^(metrics|eval|val|valid|validation|test|best)[_/. ]|^(val|valid)(?=(acc|loss))|[/_. ]best$")
# By folded name the metrics of built-in tasks that it may be, of which a task has one.
_ACCURACY = ("accuracy", "pixelaccuracy", "exactmatch")
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("acc", "accuracy", "top1", "acc1", "accuracytop1", "accuracy_top1", "prec1", "top1acc", "top1accuracy",
         "categoricalaccuracy", "sparsecategoricalaccuracy", "multiclassaccuracy", "binaryaccuracy"), _ACCURACY
    ),
    **dict.fromkeys(("crossentropy", "nll", "ce", "nllloss", "crossentropyloss", "celoss"), ("loss",)),
    **dict.fromkeys(("map", "map50", "map5095", "map50b", "map5095b", "meanaverageprecision"), ("map",)),
    **dict.fromkeys(("iou", "meaniou", "jaccard", "jaccardindex"), ("miou",)),
    **dict.fromkeys(("dicescore", "dicecoefficient", "f1dice"), ("dice",)),
    **dict.fromkeys(("mse", "meansquarederror"), ("rmse", "loss")),
    **dict.fromkeys(("meanabsoluteerror", "l1"), ("mae",)),
    **dict.fromkeys(("ppl",), ("perplexity",)),
    **dict.fromkeys(("bpb", "bpc"), ("bits_per_byte",)),
    **dict.fromkeys(("r2score",), ("r2",)),
}  # fmt: skip


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
        betas = list(current) if isinstance(current, list) and len(current) == len(ADAM_BETAS) else list(ADAM_BETAS)
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


def _lift_epochs(value: object, names: Names) -> int | None:
    """Return the number of epochs next to one of steps, no limit: where one was typed, the shorter run is meant."""
    is_limit = isinstance(value, int | float) and value > 0
    return -1 if is_limit and not names.is_typed("trainer.max_epochs") else None


def _yield_to_steps(value: object, names: Names) -> int | None:
    """Return no limit for a number of epochs that a number of steps takes the place of, as Hugging Face's does."""
    steps = names.values("trainer.max_steps") if names.is_typed("trainer.max_steps") else None
    return -1 if isinstance(steps, int) and steps > 0 else None


def _accumulate_batch(value: object, names: Names) -> int | None:
    """Return the batch of so many passes, each as large as one is now."""
    batch, passes = names.values("data.batch_size"), names.values("trainer.accumulate_grad_batches")
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 1 or not isinstance(batch, int):
        return None
    return batch // (passes if isinstance(passes, int) and passes > 0 else 1) * int(value)


def _get_count(value: object, names: Names) -> int | None:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 and value == int(value)
    return int(value) if isinstance(value, int | float) and whole else None


def find_run_of_path(path: Path) -> str | None:
    """Return the run folder that a file or folder is in; None outside of one."""
    return next((str(folder) for folder in (path, *path.parents) if (folder / "run.json").is_file()), None)


def _unwrap_single(value: object, names: Names) -> object:
    """Return the only value of a list, or a single value."""
    single = value[0] if isinstance(value, list) and len(value) == 1 else value
    return None if isinstance(single, list) else single


def _divide_lr(value: object, names: Names) -> float | None:
    """Return OneCycle's `div_factor` for the rate that a run starts with."""
    lr = _read_number("optimizer.lr", names)
    if not lr or not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < lr:
        return None
    return _round(lr / value)


def _invert_number(value: object, names: Names) -> float | None:
    is_part = isinstance(value, float) and 0 < value < 1
    return _round(1 / value) if isinstance(value, float) and is_part else None


def _split_several(value: object, names: Names) -> list[object] | None:
    """Return the numbers of a list, or of the text `30,60`; None for a single one."""
    items = value.strip("[]()").replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(items, list):
        return None
    numbers = [int(item) if str(item).isdigit() else item for item in items]
    several = len(numbers) > 1 and all(isinstance(item, int) for item in numbers)
    return sorted(numbers) if several else None


def choose_server_address(value: object) -> object:
    """Return the address of MLflow's own server in place of a folder: what mlscale installs of MLflow sends to servers,
    and opens neither a folder nor a database.
    """
    if not isinstance(value, str):
        return "http://127.0.0.1:5000"
    folder = re.sub(r"^file:(//)?", "", value)
    return value if "://" in folder or folder in ("", "databricks", "uc") else "http://127.0.0.1:5000"


def _get_side(value: object, names: Names) -> object:
    """Return the side of a square image: the last number of `3 224 224`."""
    square = isinstance(value, list) and len(value) in (2, 3) and value[-1] == value[-2]
    return value[-1] if isinstance(value, list) and square else None


def _find_metric(value: object, names: Names) -> str | None:
    """Return the metric of the task that a name is one of: `eval_accuracy` is val/accuracy."""
    return translate_metric(_unwrap_single(value, names), names.facts.task)


def _find_own_root(value: object, names: Names) -> object:
    """Return a folder of the user's data; None where `data.root` is where a bundled data set is kept."""
    target = str(names.values("data._target_") or "")
    bundled = target.startswith("mlscale.") and target != "mlscale.data.ImageFolder"
    return None if bundled else value


def _find_own_metric(value: object, names: Names) -> object:
    """Return a metric that a task of the user's logs under this name; None for a built-in task, whose metrics are
    known.
    """
    single = _unwrap_single(value, names)
    return single if isinstance(single, str) and names.facts.task not in TASK_METRICS and "/" in single else None


def translate_metric(name: object, task: str) -> str | None:
    """Return the metric that a built-in task logs at validation for the name that another program has for it."""
    logged = TASK_METRICS.get(task, ("loss",))
    folded = fold_name(_STAGE.sub("", _STAGE.sub("", str(name).lower())))
    return next(
        (
            f"val/{metric}"
            for meant in (folded, *_OTHER_NAMES.get(folded, ()))
            for metric in logged
            if fold_name(metric) == fold_name(meant)
        ),
        None,
    )


def name_nearest_metric(name: object, task: str) -> str | None:
    """Return what a built-in task logs in place of a metric of other tasks that it has not (`mAP50` of classes): its
    loss. None for a name that nothing here knows, and for one in the form that modules log: one may log it.
    """
    if str(name).partition("/")[0] in ("train", "val", "test"):
        return translate_metric(name, task)
    folded = fold_name(_STAGE.sub("", _STAGE.sub("", str(name).lower())))
    known = {fold_name(metric) for metrics in TASK_METRICS.values() for metric in metrics} | set(_OTHER_NAMES)
    if task not in TASK_METRICS or (folded not in known and not folded.startswith("map50")):
        return None
    return translate_metric(name, task) or f"val/{TASK_METRICS[task][0]}"


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
    "server_uri": lambda value, names: choose_server_address(value),
    "lr_divisor": _divide_lr,
    "inverse": _invert_number,
    "several": _split_several,
    "metric": _find_metric,
    "own_metric": _find_own_metric,
    "own_root": _find_own_root,
    "of_language": lambda value, names: value if names.facts.task == "language" else None,
    "of_classes": lambda value, names: value if names.facts.task == "classification" else None,
    "unlimited": _lift_epochs,
    "epochs_before_steps": _yield_to_steps,
    "accumulated_batch": _accumulate_batch,
    "count": _get_count,
    "run_of_path": lambda value, names: find_run_of_path(Path(value)) if isinstance(value, str) else None,
}
