"""The table of names from elsewhere: what it suggests composes, and passes the check."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from mlscale.commands import COMMANDS
from mlscale.config.names.foreign_names import load_foreign_names
from mlscale.config.names.suggest import is_override
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.key_owners import PASSED_ON
from mlscale.config.schema.roots import find_roots
from mlscale.config.suggestions.alias_meanings import find_group_option, render_alias
from mlscale.config.suggestions.templates import get_option_types
from tests.unit.config.names.composed_names import names, problems

# Keys of classes that are typed as _target_: schedules of torch's, augmentations of torchvision's.
OF_TYPED_CLASSES = {
    *(f"scheduler.{name}" for name in ("gamma", "step_size", "milestones", "T_mult", "T_0", "interval")),
    *("augment.p", "augment.value", "augment.sigma"),
}


SAMPLES = (2, "some", "torch.nn.Identity", 0.5, True, ["a"], [1], {"a": 1}, None)


def answers() -> dict[str, str]:
    """Every suggestion that the table gives in the shipped config, and a name and value that it is given for."""
    found: dict[str, str] = {}
    for name, entry in load_foreign_names().keys.items():
        for value in [*entry.values, *SAMPLES]:
            advice = render_alias(entry, name, value, names())
            if advice is not None:
                found.setdefault(advice.fix, f"{name}={value}")
                if value in SAMPLES and advice.exact:
                    break  # one value that fits
    for group, entry in load_foreign_names().options.items():
        for value in [*entry.values, *SAMPLES]:
            if fix := find_group_option(group, value, names()):
                found.setdefault(fix, f"{group}={value}")
    return {fix: typed for fix, typed in found.items() if is_override(fix)}


def packed(fixes: list[str]) -> Iterator[list[str]]:
    """Suggestions that say nothing about the same key or group, together: to compose each alone takes minutes."""
    packs: list[tuple[set[str], set[str], list[str]]] = []
    for fix in fixes:
        keys = {word.split("=")[0].lstrip("~") for word in shlex.split(fix)}
        groups = {key.split(".")[0] for key in keys if key in find_roots().groups or key.endswith("_target_")}
        groups |= {word[1:].split(".")[0] for word in shlex.split(fix) if word.startswith("~")}
        heads = {key.split(".")[0] for key in keys}
        for taken_keys, taken_groups, members in packs:
            taken_heads = {key.split(".")[0] for key in taken_keys}
            if not keys & taken_keys and not groups & taken_heads and not heads & taken_groups:
                taken_keys |= keys
                taken_groups |= groups
                members.append(fix)
                break
        else:
            packs.append((keys, groups, [fix]))
    for _, _, members in packs:
        yield members


@pytest.mark.slow
def test_every_suggestion_of_the_table_composes_and_passes_the_check() -> None:
    typed = answers()
    wrong: list[str] = []
    assert len(typed) > 180
    for members in packed([*typed]):
        if found := problems([word for fix in members for word in shlex.split(fix)]):
            wrong += [f"{[(typed[fix], fix) for fix in members]}: {found}"]
    assert wrong == []


def test_every_template_can_be_suggested_in_some_config() -> None:
    known = set(names().paths)
    for option in get_shipped_fields().options:
        known |= set(get_option_types(option.group, option.name))
    known |= {f"model.{name}" for name in PASSED_ON["timm.create_model"]}
    for entry in [*load_foreign_names().keys.values(), *load_foreign_names().options.values()]:
        for template in entry.to:
            built = tuple(front for front in ("scheduler.scheduler.", "augment.") if f"{front}_target_=" in template)
            for word in template.split(" "):
                key = word.partition("=")[0]
                if built and key.startswith((*built, "scheduler.interval", "scheduler.monitor")):
                    continue  # of a class that the template names
                if key in OF_TYPED_CLASSES:
                    continue
                assert key in known or key in find_roots().groups or key.endswith("_target_"), template
        assert entry.to or entry.values or entry.group or entry.unsupported


def test_the_table_is_long_and_says_each_name_once() -> None:
    assert len(load_foreign_names().keys) >= 1000
    assert not set(load_foreign_names().commands) & set(COMMANDS)
    for command in load_foreign_names().commands.values():
        assert command.split()[0] in COMMANDS


def test_a_name_that_is_a_key_here_means_that_key() -> None:
    """`patience` is no foreign name for anything but the key of this name, unless the table says so."""
    leaves = {
        path.rpartition(".")[2] for path in names().paths if "." in path and get_shipped_fields().find_field(path)
    }
    for name, entry in load_foreign_names().keys.items():
        if name in leaves and not entry.first and not entry.unsupported and not entry.group:
            keys = [word.partition("=")[0].rpartition(".")[2] for fix in entry.to for word in fix.split(" ")]
            assert name in keys, name


def test_the_keys_that_a_reason_names_exist() -> None:
    known = set(names().paths)
    for option in get_shipped_fields().options:
        known |= {*get_option_types(option.group, option.name), option.package}
    for entry in load_foreign_names().keys.values():
        for text in (entry.unsupported, entry.why, *entry.reasons.values()):
            for key in re.findall(r"(?<![\w/.{])([a-z]+\.[a-z_.]+[a-z])(?![\w(/])", text):
                is_key = key.partition(".")[0] in {path.partition(".")[0] for path in known}
                key = key.replace("scheduler.scheduler.", "scheduler.")
                is_key = is_key and key not in OF_TYPED_CLASSES
                assert not is_key or "_target_" in key or key in known or any(k.startswith(f"{key}.") for k in known), (
                    text
                )
