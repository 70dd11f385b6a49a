"""Join the fixes of several problems that set the same key: typed one after the other, only the last would count.

`adam_beta1=0.8 adam_beta2=0.95` is one `optimizer.betas`, and `model_ema=true patience=5` one list of callbacks.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from mlscale.config.names.suggest import format_override, is_override
from mlscale.config.schema.key_owners import BUILDS_SEVERAL
from mlscale.config.suggestions.completed_advice import REPLACED_GROUPS
from mlscale.config.suggestions.config_names import Names
from mlscale.config.suggestions.templates import choose_option, get_option_types, parse_yaml_word
from mlscale.config.suggestions.value_forms import ADAM_BETAS
from mlscale.errors import MLScaleError

_WORD = re.compile(r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"])+")
_OF_A_FILE = re.compile(r"(.*)(, and take '.*' out of the file)")
_COMPUTED = ("data.batch_size",)
_COUNTED = ("trainer.devices", "trainer.max_steps")  # other settings depend on them, next to which words ever they are
_UNKNOWN = re.compile(r"unknown (key|flag) '(?:--)?([^']*)'")


def find_choices(problems: Sequence[MLScaleError]) -> dict[str, str]:
    """Return by group the options that a fix chooses and does nothing else: what other fixes must suit."""
    words = [parse_fix(problem.fix) for problem in problems]
    single = [next(iter(fix.items())) for fix in words if len(fix) == 1]
    return {key: word.partition("=")[2] for key, word in single if key in REPLACED_GROUPS}


def find_settings(problems: Sequence[MLScaleError]) -> dict[str, object]:
    """Return by key what a fix sets and does nothing else, and the number of devices and steps: what other fixes count
    with.
    """
    settings: dict[str, object] = {}
    # Not what a longer fix computes: a batch that was computed from a batch must not be counted with again.
    for fix in (parse_fix(problem.fix) for problem in problems):
        for key, word in fix.items():
            is_plain = "." in key and not key.startswith("~") and not key.endswith("_target_")
            if is_plain and (len(fix) == 1 or key in _COUNTED):
                settings.setdefault(key, _read_value(word))
    return settings


def _read_value(word: str) -> Any:
    """Return the value of an override as it is typed in a shell: `"mail.host='3'"` is the text 3."""
    return parse_yaml_word("".join(shlex.split(word)).partition("=")[2])


def join_fixes(problems: Sequence[MLScaleError], names: Names) -> None:
    """Give the problems whose fixes set the same key one fix for all of them."""
    fixes = [parse_fix(problem.fix) for problem in problems]
    for members in _group_by_key(fixes):
        _join([problems[index] for index in members], [fixes[index] for index in members], names)


def find_typed_name(problem: MLScaleError) -> str:
    """Return the key of a problem with an unknown one, of a flag as a key is spelled; "" for other problems."""
    match = _UNKNOWN.match(problem.what)
    if match is None:
        return ""
    return match[2].replace("-", "_") if match[1] == "flag" else match[2]


def replace_overrides(problem: MLScaleError, text: str) -> None:
    """Set the overrides of a problem's fix, which may ask besides to take a key out of a file."""
    match = _OF_A_FILE.fullmatch(problem.fix)
    problem.fix = text + (match[2] if match else "")


def parse_fix(fix: str) -> dict[str, str]:
    """Return the words of a fix by their keys; nothing for what is no override."""
    match = _OF_A_FILE.fullmatch(fix)
    text = match[1] if match else fix
    if not is_override(text) or "\n" in text or "<" in text:
        return {}
    return {word.strip("'\"").partition("=")[0]: word for word in _WORD.findall(text)}


def _group_by_key(fixes: Sequence[Mapping[str, str]]) -> Iterator[list[int]]:
    """Yield the indices of fixes that set the same key, or that choose an option and set one of its keys."""
    chosen = {key for fix in fixes for key in fix if key in REPLACED_GROUPS}
    groups: list[tuple[set[str], list[int]]] = []
    for index, fix in enumerate(fixes):
        heads = {key: key.partition(".")[0] for key in fix}
        keys, members = {head if head in chosen else key for key, head in heads.items()}, [index]
        for group in [group for group in groups if group[0] & keys]:
            groups.remove(group)
            keys, members = keys | group[0], [*group[1], *members]
        groups.append((keys, members))
    yield from (sorted(members) for _, members in groups if len({str(fixes[index]) for index in members}) > 1)


def _join(problems: Sequence[MLScaleError], fixes: Sequence[Mapping[str, str]], names: Names) -> None:
    options = _pick_options(fixes)
    if options is None:
        return
    chosen = reduce(lambda names, item: choose_option(names, *item), options.items(), names)
    joined: dict[str, str] = {}
    # A setting that a fix has computed from another one, which was typed: `batch_size=32 accumulate_grad_batches=2`.
    alone = {word for fix in fixes if len(fix) == 1 for key, word in fix.items() if key in _COMPUTED}
    left_out: set[str] = set()
    for fix in fixes:
        for key, word in fix.items():
            group = key.partition(".")[0]
            if key in options:
                joined[key] = f"{key}={options[key]}"
            elif group in options and key not in get_option_types(group, options[group]):
                left_out.add(key)
            elif key not in joined or joined[key] in alone:
                joined[key] = word
            # The fix that was computed has counted with this one.
            elif word in alone:
                continue
            elif (both := _join_values(key, joined[key], word, chosen)) is not None:
                joined[key] = both
            else:
                return  # the same setting was typed twice: which one is meant is not known
    # An option goes in front of its settings, whichever was typed first.
    text = " ".join(sorted(joined.values(), key=lambda word: "." in word.partition("=")[0]))
    for problem, fix in zip(problems, fixes, strict=True):
        typed = find_typed_name(problem)
        if typed and (lacking := left_out & set(fix)):
            group = next(iter(lacking)).partition(".")[0]
            problem.fix, problem.why = f"leave {typed} out", f"{group}={options[group]} has no such setting"
        else:
            replace_overrides(problem, text)


def _pick_options(fixes: Sequence[Mapping[str, str]]) -> dict[str, str] | None:
    """Return the option of each group that is chosen: the one that was asked for by name, else one that has all the
    settings; None where neither is known.
    """
    picked = {}
    for group in {key for fix in fixes for key in fix if key in REPLACED_GROUPS}:
        choosing = [fix for fix in fixes if group in fix]
        options = dict.fromkeys(fix[group].partition("=")[2] for fix in choosing)
        named = dict.fromkeys(fix[group].partition("=")[2] for fix in choosing if len(fix) == 1)
        keys = {key for fix in fixes for key in fix if key.startswith(f"{group}.")}
        fitting = [option for option in options if keys <= set(get_option_types(group, option))]
        # A schedule with a warm-up is the same schedule; another optimizer is another one.
        wanted = fitting if fitting and (group == "scheduler" or not named) else list(named)
        if not wanted or (len(named) > 1 and group != "scheduler"):
            return None
        picked[group] = wanted[0]
    return picked


def _join_values(key: str, first: str, second: str, names: Names) -> str | None:
    """Return an override with the values of two; None where they contradict each other."""
    if first == second:
        return first
    # The values that are joined are short lists, numbers and names, which YAML reads as Hydra does.
    one, other = _read_value(first), _read_value(second)
    if key in BUILDS_SEVERAL:
        entries = [*([one] if isinstance(one, str) else one), *([other] if isinstance(other, str) else other)]
        several = [entry for entry in dict.fromkeys(entries) if entry != "none"]  # of none and another one the other
        return format_override(key, several)
    before = names.values(key) or (ADAM_BETAS if key == "optimizer.betas" else None)
    if not isinstance(one, list) or not isinstance(other, list) or not isinstance(before, list):
        return None
    if not len(one) == len(other) == len(before):
        return None
    # Of two lists that each change one item of the present one, both changes.
    changed = [b if b != was else a for a, b, was in zip(one, other, before, strict=True)]
    return format_override(key, changed)
