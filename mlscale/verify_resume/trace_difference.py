"""Describe a difference between two traces: its place, the values that differ, the object as its cause, the fix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mlscale.verify_resume.traces import DifferingValue, TraceDifference, TraceLine

_MAX_ATTRIBUTES = 3
_SAVING_ADVICE = {
    "module": "on_save_checkpoint(self, checkpoint): checkpoint['{name}'] = {read}, and read it back in "
    "on_load_checkpoint",
    "callback": "return {read} in state_dict() of the callback, and read it back in its load_state_dict()",
    "data": "return {read} in state_dict() of the data module, and read it back in its load_state_dict()",
    "loader": "give the loader a state_dict() that holds {read} and a load_state_dict(), or make it follow from "
    "(seed, epoch, sample)",
}
_STATES = "the state of {name} (getstate, get_state or bit_generator.state)"
NO_ATTRIBUTE = (
    "look for what decides a step and is not an attribute: a global variable, a file, a closure, a callback that "
    "replaces a scheduler, or processes that load data and outlive an epoch (persistent_workers)"
)
"""The advice where no attribute is the cause."""


def describe_computed_values(difference: TraceDifference) -> list[str]:
    """Return the values that differ at the first place, a line for each kind."""
    if difference.missing:
        return [f"{_format_line_location(difference.line)} is reached by one of the runs alone"]
    lines = []
    if (part := difference.find_first_part("loss")) is not None:
        lines.append(f"loss {_format_value_change(part)}")
    if (part := difference.find_first_part("tensor")) is not None:
        lines.append(f"first tensor: {part.name}{_format_remaining_count(difference, 'tensor')}")
    # Only where no tensor differs: where the weights do, so does the optimizer's state.
    elif (part := difference.find_first_part("optimizer")) is not None:
        lines.append(f"first state: {part.name}{_format_remaining_count(difference, 'optimizer')}")
    if names := [part.name for part in difference.parts if part.kind == "generator"]:
        lines.append(f"random generators: {', '.join(names)}")
    if (part := difference.find_first_part("batch")) is not None:
        lines.append(_describe_batch_change(part))
    if (part := difference.find_first_part("metric")) is not None:
        lines.append(f"metric {part.name} {_format_value_change(part)}{_format_remaining_count(difference, 'metric')}")
    return lines


def describe_location(difference: TraceDifference) -> str:
    """Return the place of a difference, with its rank if that is not 0."""
    rank = f", rank {difference.rank}" if difference.rank else ""
    return _format_line_location(difference.line) + rank


def describe_attribute(part: DifferingValue) -> str:
    """Return an attribute in words: its name, its owner and its two values."""
    what = "random generator" if part.kind == "own generator" else "attribute"
    return f"{what} `{part.name}` of {describe_owner(part.owner)} {_format_value_change(part)}"


def describe_owner(text: str) -> str:
    """Return an owner in words, from a text such as `callback my_pkg.X at number 2`."""
    role, _, rest = text.partition(" ")
    name, _, path = rest.partition(" at ")
    article = {"callback": "the callback ", "loader": "the loader's " if path else "the loader "}.get(role, "")
    return f"{article}{name}" + (f" ({path})" if path else "")


def advise_saving(parts: Sequence[DifferingValue]) -> str:
    """Return the advice for lost attributes, one line for each different one."""
    return "\n".join(dict.fromkeys(_advise_saving_attribute(part) for part in parts[:_MAX_ATTRIBUTES]))


def list_attributes(parts: Iterable[DifferingValue]) -> list[str]:
    """Return the first few attributes in words, and the number of the others."""
    known = list(parts)
    lines = [describe_attribute(part) for part in known[:_MAX_ATTRIBUTES]]
    return lines + ([f"and {len(known) - _MAX_ATTRIBUTES} more"] if len(known) > _MAX_ATTRIBUTES else [])


def _advise_saving_attribute(part: DifferingValue) -> str:
    role, _, rest = part.owner.partition(" ")
    name = part.name.partition("[")[0]
    if part.kind == "own generator":
        return _SAVING_ADVICE[role].format(name=name, read=_STATES.format(name=name))
    if role == "module" and part.value_kind == "tensor":
        return f"self.register_buffer('{name}', …) in place of self.{name} = …"
    # An attribute of an object inside of the module is not an attribute of `self`.
    inside = " at " in rest and role == "module"
    text = _SAVING_ADVICE[role].format(name=name, read=f"self.{name}" if role == "module" and not inside else name)
    number = isinstance(part.was, int | float) or _is_hex(part.was)
    return text + (f"; or self.register_buffer('{name}', torch.tensor(…))" if role == "module" and number else "")


def _format_line_location(line: TraceLine) -> str:
    after = {
        "begin": "the beginning of the epoch after step",
        "resumed": "the moment of resuming from step",
        "epoch": "the end of the epoch after step",
        "end": "the end, after step",
        "validation": "the validation after step",
    }
    return f"{after.get(line.kind, 'step')} {line.step:,}"


def _describe_batch_change(part: DifferingValue) -> str:
    if part.was == part.now:
        return "batches: other values" + (" of the same samples" if part.was else "")
    # Not strict: one of the runs may have seen fewer samples.
    pairs = ((was, now) for was, now in zip(part.was, part.now, strict=False) if was != now)
    was, now = next(pairs, ("none", "none"))
    return f"batches: other samples, {now} instead of {was} first"


def _format_value_change(part: DifferingValue) -> str:
    now, was = _format_traced_value(part.now), _format_traced_value(part.was)
    return f"is {now} instead of {was}" if now and was and now != was else "differs"


def _format_traced_value(value: object) -> str:
    """Return a number as text; empty for a digest, which means nothing to a reader."""
    if isinstance(value, str) and _is_hex(value):
        number = float.fromhex(value)
        return repr(number) if math.isfinite(number) else str(number)
    return str(value) if not isinstance(value, str) or value == "absent" else ""


def _is_hex(value: object) -> bool:
    return isinstance(value, str) and (value.lstrip("-").startswith("0x") or value in ("nan", "inf", "-inf"))


def _format_remaining_count(difference: TraceDifference, kind: str) -> str:
    count = sum(part.kind == kind for part in difference.parts) - 1
    return f", and {count} more" if count else ""
