"""Join fixes that build one of torch's schedules: `sched=step decay_epochs=20 decay_rate=0.5` is one StepLR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlscale.config.signatures.signatures import Signature, read_signature
from mlscale.config.suggestions.joined_fixes import find_typed_name, parse_fix, replace_overrides
from mlscale.errors import MLScaleError

_FRONT = "scheduler.scheduler."  # in Lightning's dictionary of a schedule
_TARGET = f"{_FRONT}_target_"
_LAST = ("scheduler.interval", "scheduler.monitor")
# What the table of foreign names gives for a setting that the class needs and nobody has typed.
_EXAMPLES = tuple(f"{_FRONT}{word}" for word in ("step_size=30", "milestones=[30,60]", "T_0=10", "gamma=0.95"))


def join_schedules(problems: Sequence[MLScaleError]) -> None:
    """Give the problems whose fixes build a schedule one fix with the settings of all, and leave out what the schedule
    does not take.
    """
    fixes = [parse_fix(problem.fix) for problem in problems]
    building = [fix for fix in fixes if _TARGET in fix]
    typed = [_list_typed_settings(fix) for fix in building]
    settings = {key: word for words in typed for key, word in words.items()}
    # The same setting with two values is the user's contradiction.
    if not building or any(settings[key] != word for words in typed for key, word in words.items()):
        return
    # First the class that was asked for by name, with nothing but examples in its fix.
    base = next((fix for fix in sorted(building, key=_count_typed) if _takes_all(fix, settings)), None)
    if base is None:
        return
    text, target = _render(base | settings), base[_TARGET].partition("=")[2]
    for problem, fix in zip(problems, fixes, strict=True):
        if _TARGET in fix and len(building) > 1:
            replace_overrides(problem, text)
            problem.why = f"one {target.rpartition('.')[2]} has all of it"
        # An option that was asked for alone is another schedule: which one is meant is not known.
        elif _TARGET not in fix and any(key.startswith("scheduler.") for key in fix) and find_typed_name(problem):
            problem.fix, problem.why = f"leave {find_typed_name(problem)} out", f"{target} has no such setting"


def _list_typed_settings(fix: Mapping[str, str]) -> dict[str, str]:
    """Return the words that set what was typed, and not an example."""
    return {
        key: word
        for key, word in fix.items()
        if key.startswith(_FRONT) and not key.endswith(("._target_", "._partial_")) and word not in _EXAMPLES
    }


def _count_typed(fix: Mapping[str, str]) -> int:
    return len(_list_typed_settings(fix))


def _takes_all(fix: Mapping[str, str], settings: Mapping[str, str]) -> bool:
    """Return whether the class of a fix has all of the settings."""
    signature = read_signature(fix[_TARGET].partition("=")[2])
    return isinstance(signature, Signature) and {key.removeprefix(_FRONT) for key in settings} <= set(signature.named)


def _render(words: Mapping[str, str]) -> str:
    """Return the words as a fix: the option, its class and settings, and how Lightning steps it."""
    return " ".join(words[key] for key in sorted(words, key=lambda key: key in _LAST))
