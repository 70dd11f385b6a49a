"""Complete a suggestion for one config: what is chosen already is left out, and what else changes is stated."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from mlscale.config.names.suggest import format_hydra_value, format_override, is_override
from mlscale.config.schema.documented_fields import Option, get_shipped_fields
from mlscale.config.signatures.signatures import Signature, read_signature
from mlscale.config.suggestions.config_names import Advice, Names
from mlscale.config.suggestions.templates import list_default_options

REPLACED_GROUPS = ("data", "augment", "model", "task", "optimizer", "scheduler")
"""Groups of which one option takes the place of another, with all of its settings."""
_ONE_CLASS_EACH = ("optimizer", "task")
"""Of these the groups whose options differ by their class: the one in use is not chosen again."""
_CYCLED = {"momentum", "betas"}  # what OneCycleLR moves, unless it is told not to
_OF_DEVICES = ("trainer.devices", "trainer.accelerator")
_FEW = 3  # settings that a reason can hold


def complete_advice(advice: Advice, path: str, names: Names) -> Advice:
    """Return the advice with what this config needs besides, and with the reason what else changes.

    Args:
        path: the key that was typed.
    """
    # A sentence or a choice of several is not typed as it is, so nothing can be added to it.
    if not is_override(advice.fix) or "\n" in advice.fix:
        return advice
    words = shlex.split(advice.fix)
    needed = [word for word in words if not _is_in_use(word, names)]
    if not needed and words:
        return Advice(f"leave {path} out", join_reasons(f"{words[0]} is what this run has", advice.why))
    fix = _add_present_entries(
        advice.fix if needed == words else _remove_words(advice.fix, {*words} - {*needed}), names
    )
    if any(_stops_cycling(word, names) for word in needed):
        fix += " scheduler.cycle_momentum=false"
    fix += "".join(f" {betas}" for word in needed if (betas := _restore_betas(word, names)))
    swaps = [text for word in needed if (text := _describe_swap(word, needed, names))]
    why = join_reasons(advice.why, *swaps, *_describe_cycle(needed, names))
    return replace(advice, fix=leave_typed_out(fix, names, path), why=why)


def leave_typed_out(fix: str, names: Names, path: str = "") -> str:
    """Return a fix without the number and kind of devices that the command line sets already.

    Args:
        path: the key that is fixed: what was typed for it is wrong.
    """
    words = fix.split(" ")
    # A fix of one word stays: to find out what was typed may need all files again.
    if len(words) > 1:
        words = [word for word in words if word.startswith(f"{path}=") or not _contradicts_typed(word, names)] or words
    return " ".join(words)


def _contradicts_typed(word: str, names: Names) -> bool:
    """Return whether a word sets what the command line sets to something else: what was typed is meant."""
    key = word.partition("=")[0]
    is_typed = key in _OF_DEVICES and names.is_typed(key)
    return is_typed and word != format_override(key, names.values(key))


def join_reasons(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _remove_words(fix: str, words: set[str]) -> str:
    return " ".join(word for word in fix.split(" ") if word not in words)


def _add_present_entries(fix: str, names: Names) -> str:
    """Return a fix whose list of callbacks has those that were added already: a list takes the place of another."""
    entries = names.values("callbacks")
    default = {option for group, option in list_default_options() if group == "callbacks"}
    shipped = {item.name for item in get_shipped_fields().list_group_options("callbacks")}
    added = [str(name) for name in entries if name in shipped - default] if isinstance(entries, dict) else []

    def join_entries(match: re.Match[str]) -> str:
        return f"callbacks=[{','.join(dict.fromkeys(['default', *added, *match[1].split(',')]))}]"

    return re.sub(r"callbacks=\[default,([^\]]*)\]", join_entries, fix)


def _find_option(word: str) -> Option | None:
    """Return the shipped option that an override chooses, in a group of which one takes the place of another."""
    group, _, name = word.partition("=")
    options = get_shipped_fields().list_group_options(group) if group in REPLACED_GROUPS else ()
    return next((item for item in options if item.name == name and item.target), None)


def _is_in_use(word: str, names: Names) -> bool:
    option = _find_option(word)
    return (
        option is not None
        and option.group in _ONE_CLASS_EACH
        and names.values(f"{option.group}._target_") == option.target
    )


def _describe_swap(word: str, words: list[str], names: Names) -> str:
    """Return what an option takes the place of, and which settings change by it; "" where it takes no place."""
    group = word.partition("=")[0].removesuffix("._target_")
    current = names.values(f"{group}._target_") if group in REPLACED_GROUPS else None
    option = _find_option(word)
    built = any(item.startswith(f"{group}._target_=") for item in words)
    if option is not None and built:  # its class is set besides, which has the word
        return ""
    if not isinstance(current, str) or (option is None and not word.startswith(f"{group}._target_=")):
        return ""
    changes = list(_iterate_changes(option, words, names)) if option is not None else []
    if option is not None and option.target == current and not changes:
        return ""
    if option is None and word.partition("=")[2] == current:
        return ""
    same = option is not None and option.target == current
    chosen = word if option is not None else word.partition("=")[2]
    swap = "" if same else f"{chosen} takes the place of {current}"
    return ": ".join(text for text in (swap, ", ".join(changes[:_FEW])) if text)


def _iterate_changes(option: Option, words: list[str], names: Names) -> Iterator[str]:
    """Yield the settings that both have and that an option sets to another value."""
    typed = {word.partition("=")[0] for word in words}
    for item in option.fields:
        before = names.values(item.path)
        # Interpolations are not resolved here, and a mandatory value is absent: neither can be compared.
        plain = not any("${" in str(value) or "???" in str(value) for value in (before, item.default))
        if before is not None and plain and before != item.default and item.path not in typed:
            yield f"{item.path} {format_hydra_value(before)} becomes {format_hydra_value(item.default)}"


def _stops_cycling(word: str, names: Names) -> bool:
    """Return whether an optimizer has no momentum, which the scheduler in use would cycle."""
    key, _, target = word.partition("=")
    if key != "optimizer._target_" or "scheduler.cycle_momentum" not in names.paths:
        return False
    signature = read_signature(target) if target.startswith(("torch.optim.", "timm.optim.")) else None
    return isinstance(signature, Signature) and not _CYCLED & set(signature.named)


def _restore_betas(word: str, names: Names) -> str:
    """Return the override for an optimizer's own betas where the ones that are set are of another number (Adan takes
    three); "" where they suit.
    """
    key, _, target = word.partition("=")
    before = names.values("optimizer.betas")
    signature = read_signature(target) if key == "optimizer._target_" and isinstance(before, list) else None
    parameter = signature.named.get("betas") if isinstance(signature, Signature) else None
    own = parameter.default if parameter is not None else None
    if not isinstance(own, tuple) or not isinstance(before, list) or len(own) == len(before):
        return ""
    return format_override("optimizer.betas", list(own))


def _describe_cycle(words: list[str], names: Names) -> Iterator[str]:
    """Yield the reason why a momentum alone has no effect: OneCycle moves it between two others."""
    typed = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    if "scheduler.cycle_momentum" not in names.paths or names.values("scheduler.cycle_momentum") is False:
        return
    if any(key.partition(".")[0] == "scheduler" for key in typed):
        return
    before = names.values("optimizer.betas")
    first = str(before[0]) if isinstance(before, list) and before else "0.9"
    changed = "optimizer.betas" in typed and not typed["optimizer.betas"].startswith(f"[{first},")
    if "optimizer.momentum" in typed or changed:
        yield "the scheduler cycles it between base_momentum and max_momentum unless scheduler.cycle_momentum=false"
