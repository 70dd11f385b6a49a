"""Join fixes that type a class over a group's own: its settings are other ones, and a group builds one class alone.

`vflip=0.5 mixup=0.2` can't have both: RandomVerticalFlip has no mixup. `vflip=0.5 perspective=0.2` can, by a Compose.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.target_nodes import Node
from mlscale.config.schema.values import convert_value
from mlscale.config.signatures.signatures import Signature, read_signature
from mlscale.config.suggestions.completed_advice import REPLACED_GROUPS
from mlscale.config.suggestions.joined_fixes import find_typed_name, parse_fix, replace_overrides
from mlscale.config.suggestions.joined_schedules import join_schedules
from mlscale.config.suggestions.templates import parse_yaml_word
from mlscale.errors import MLScaleError

_COMPOSE = "torchvision.transforms.v2.Compose"


def join_classes(problems: Sequence[MLScaleError]) -> None:
    """Make the fixes of one group suit the class that one of them types, and several augmentations one Compose."""
    for group in REPLACED_GROUPS:
        fixes = [parse_fix(problem.fix) for problem in problems]
        classes = list(dict.fromkeys(target for fix in fixes if (target := _read_text(fix, f"{group}._target_"))))
        if len(classes) > 1 and group == "augment":
            _compose_augmentations(problems, fixes)
        # Of two optimizers nobody knows which one is meant: both fixes stay as they are.
        if len(classes) == 1 or (classes and group == "augment"):
            target = classes[0] if len(classes) == 1 else _COMPOSE
            for problem, fix in zip(problems, fixes, strict=True):
                _suit_class(problem, fix, group, target)
    join_schedules(problems)


def _read_text(fix: Mapping[str, str], key: str) -> str:
    """Return the right side of a fix's word as Hydra reads it; "" for a key that it does not set."""
    return "".join(shlex.split(fix.get(key, ""))).partition("=")[2]


def _compose_augmentations(problems: Sequence[MLScaleError], fixes: Sequence[Mapping[str, str]]) -> None:
    """Give the problems whose fixes type transforms of images one fix that applies them one after the other."""
    settings: dict[str, dict[str, str]] = {}
    typing = [index for index, fix in enumerate(fixes) if "augment._target_" in fix]
    for index in typing:
        entry = settings.setdefault(_read_text(fixes[index], "augment._target_"), {})
        entry |= {
            key.removeprefix("augment."): _read_text(fixes[index], key)
            for key in fixes[index]
            if key.startswith("augment.")
        }
    entries = ["{" + ",".join(f"{key}:{text}" for key, text in entry.items()) + "}" for entry in settings.values()]
    # A shell expands braces, so the list is quoted.
    fix = f"augment._target_={_COMPOSE} 'augment.transforms=[{','.join(entries)}]'"
    for index in typing:
        replace_overrides(problems[index], fix)
        problems[index].why = f"augment is one class: {_COMPOSE.rpartition('.')[2]} applies several in turn"


def _suit_class(problem: MLScaleError, fix: Mapping[str, str], group: str, target: str) -> None:
    """Change a fix that is about a group's former class: its settings remain where the new class has them, too."""
    keys = {key for key in fix if key.startswith(f"{group}.")}
    signature, typed = read_signature(target), find_typed_name(problem)
    if f"{group}._target_" in fix or not keys or not typed or not isinstance(signature, Signature):
        return
    if all(_takes_setting(signature, key.removeprefix(f"{group}."), _read_text(fix, key)) for key in keys):
        if group in fix:  # the option would bring its own class back
            replace_overrides(problem, " ".join(word for key, word in fix.items() if key != group))
            problem.why = f"{target} has it"
    elif not signature.open:
        problem.fix, problem.why = f"leave {typed} out", f"{target} has no such setting"


def _takes_setting(signature: Signature, name: str, text: str) -> bool:
    """Return whether a class has an argument of this name and kind: Adafactor's `eps` are two numbers."""
    types = Node("", {"_target_": signature.target}, get_shipped_fields()).get_types(name)
    return name in signature.named and convert_value(parse_yaml_word(text), types)[0]
