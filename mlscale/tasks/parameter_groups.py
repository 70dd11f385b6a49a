"""Parameters in groups, each with a learning rate and other settings of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Optimizer

from mlscale.errors import MLScaleError
from mlscale.tasks.models.layers import list_layers

Rules = Sequence[Mapping[str, Any]]
SCALE = "lr_scale"
"""The key of a group for the factor of its learning rate."""
_OWN = ("match", SCALE)
_REST = "rest"
_WITHOUT_DEFAULT = {"timm.optim.muon": ("use_fallback",)}  # what an optimizer reads in groups alone


def parameter_groups(module: nn.Module, rules: Rules = (), layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Return the trainable parameters of `module` in named groups, each parameter in exactly one.

    All rules whose pattern matches a parameter apply to it; a later one wins where both set the same. So
    `{match: model.head.*, lr_scale: 10}` and `{match: '*.bias', weight_decay: 0}` make four groups, where all occur.

    Args:
        module: whose parameters are grouped.
        rules: each `match` and settings: `lr_scale`, a factor to the learning rate, and options of the optimizer.
            `match` is a pattern of a parameter's name (`model.stem.*`) or of its layer's class and name
            (`*norm*.weight`), several divided by '|', with `*` and `?`, in small or capital letters.
        layer_decay: the learning rate of a layer is that of the one above it times this (`list_layers`); 1 for none.
            As in ELECTRA (Clark et al. 2020, arXiv:2003.10555) and BEiT.

    Returns:
        dictionaries for an optimizer: `params`, `name`, `lr_scale` where it is not 1, and the rules' other settings.

    Raises:
        MLScaleError: a rule is not valid, or its pattern matches nothing.
    """
    _check_rules(rules, layer_decay)
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    # Lower case on both sides: class names are in capital letters, and patterns may be either way.
    called = {name: (name.lower(), _format_class_name(module, name)) for name in named}
    layers = {name: number for number, layer in enumerate(list_layers(module)) for name in layer}
    last = max(layers.values(), default=0)
    groups: dict[str, dict[str, Any]] = {}
    used: set[int] = set()
    for name, parameter in named.items():
        applied = [number for number, rule in enumerate(rules) if _is_match(rule["match"], called[name])]
        used.update(applied)
        options = {key: value for number in applied for key, value in rules[number].items() if key != "match"}
        words = [str(rules[number]["match"]) for number in applied]
        if layer_decay != 1:
            layer = layers.get(name, 0)
            options[SCALE] = options.get(SCALE, 1.0) * layer_decay ** (last - layer)
            words.append(f"layer {layer}")
        # Parameters with the same rules and layer share a group: an optimizer runs its kernels once per group.
        title = " + ".join(words) or _REST
        if options.get(SCALE, 0) == 1:
            # Left out where it is 1: schedules set rates by group as soon as one group has the key.
            del options[SCALE]
        groups.setdefault(title, {"params": [], "name": title, **options})["params"].append(parameter)
    idle = [str(rule["match"]) for number, rule in enumerate(rules) if number not in used]
    if idle:
        raise _make_no_match_error(idle[0], list(named))
    return list(groups.values())


def scale_learning_rates(optimizer: Optimizer) -> None:
    """Multiply each group's learning rate by its `lr_scale`; call before a scheduler is made, which keeps the rates.

    Raises:
        MLScaleError: a rule sets an option that the optimizer lacks, which torch would ignore silently.
    """
    known = [SCALE, *optimizer.defaults, *_WITHOUT_DEFAULT.get(type(optimizer).__module__, ())]
    for group in optimizer.param_groups:
        strange = [key for key in group if key not in known and key not in ("params", "name")]
        if strange:
            close = get_close_matches(strange[0], known, 1)
            raise _make_rule_error(
                f"{type(optimizer).__name__} has no setting '{strange[0]}'",
                why=f"a group may have: {', '.join(known)}",
                fix=f"write '{close[0]}' in place of '{strange[0]}'" if close else "leave it out",
            )
        group["lr"] = group["lr"] * group.get(SCALE, 1.0)


def compute_group_rates(optimizer: Optimizer, rate: float) -> list[float]:
    """Return `rate` for each group, times its `lr_scale`: for schedules that set the largest rate themselves."""
    return [rate * group.get(SCALE, 1.0) for group in optimizer.param_groups]


def _check_rules(rules: Rules, layer_decay: float) -> None:
    for rule in rules:
        if not isinstance(rule, Mapping) or not isinstance(rule.get("match"), str) or len(rule) < 2:
            raise _make_rule_error(
                f"not a rule for parameters: {rule}",
                why="a rule has a pattern and what is set for the parameters that match it",
                fix="'param_groups=[{match:model.head.*,lr_scale:10}]'",
            )
        scale = rule.get(SCALE, 1.0)
        # A bool is an int in Python.
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
            raise _make_rule_error(
                f"{SCALE} is {scale}",
                why="it is a factor above 0; what is not trained is frozen",
                fix="callbacks=[default,freeze]",
            )
    if not 0 < layer_decay <= 1:
        raise _make_rule_error(
            f"layer_decay is {layer_decay}",
            where="layer_decay",
            why="it is above 0 and at most 1",
            fix="layer_decay=0.75",
        )


def _format_class_name(module: nn.Module, name: str) -> str:
    path, _, last = name.rpartition(".")
    return f"{type(module.get_submodule(path)).__name__}.{last}".lower()


def _is_match(pattern: str, names: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, part.strip().lower()) for part in pattern.split("|") for name in names)


def _make_no_match_error(pattern: str, names: list[str]) -> MLScaleError:
    close = get_close_matches(pattern, names, 1, 0.3)
    shown = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in names))
    return _make_rule_error(
        f"no parameter is called '{pattern}'",
        why=f"there are: {shown[:300]}{' …' if len(shown) > 300 else ''}",
        fix=f"match: {(close or names or ['*'])[0]}",
    )


def _make_rule_error(what: str, *, why: str, fix: str, where: str = "param_groups") -> MLScaleError:
    error = MLScaleError(what, where=where, why=why, fix=fix)
    error.unbuilt = True  # nothing has run yet
    return error
