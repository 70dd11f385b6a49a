"""Describe the results of killed and resumed runs: a sentence, the values that differ, what was not saved, a fix."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlscale.verify_resume.killed_run import KillPoint
from mlscale.verify_resume.traces import DifferingValue, TraceComparison, TraceDifference, TraceLine

_MAX_ATTRIBUTES = 3
_REPEATABLE = (
    "what is drawn must follow from `seed`: look for random numbers that follow the clock and for files or sets in no "
    "order; on CUDA, trainer.deterministic=true"
)
_NO_ATTRIBUTE = (
    "look for what decides a step and is not an attribute: a global variable, a file, a closure, a callback that "
    "replaces a scheduler, or processes that load data and outlive an epoch (persistent_workers)"
)
_SAVING_ADVICE = {
    "module": "on_save_checkpoint(self, checkpoint): checkpoint['{name}'] = {read}, and read it back in "
    "on_load_checkpoint",
    "callback": "return {read} in state_dict() of the callback, and read it back in its load_state_dict()",
    "data": "return {read} in state_dict() of the data module, and read it back in its load_state_dict()",
    "loader": "give the loader a state_dict() that holds {read} and a load_state_dict(), or make it follow from "
    "(seed, epoch, sample)",
}
_AFTER = {
    "begin": "the beginning of the epoch after step",
    "resumed": "the moment of resuming from step",
    "epoch": "the end of the epoch after step",
    "end": "the end, after step",
    "validation": "the validation after step",
}


@dataclass(frozen=True)
class KillTrial:
    """The result of a run that was killed and resumed.

    Attributes:
        kill: the kill point.
        resumed_from: the optimizer step from which it resumed; None where it took no step.
        comparison: with the run that was not killed.
        failed: the error with which it ended; empty where it was completed.
        resumed: True if it was killed, so that it had to resume.
        other_batches: the batches that the resume loaded again were not those before the kill. What follows may be the
            same all the same: a generator that is drawn from twice at a resume is where it was after two epochs.
    """

    kill: KillPoint
    resumed_from: int | None
    comparison: TraceComparison
    failed: str = ""
    resumed: bool = True
    other_batches: bool = False

    @property
    def is_identical(self) -> bool:
        """True if its results are bitwise identical."""
        return not self.failed and self.comparison.difference is None and not self.other_batches

    @property
    def differs_before_the_kill(self) -> bool:
        """True if it differed from the other run before it was interrupted."""
        difference = self.comparison.difference
        return difference is not None and not difference.missing and difference.line.attempt < 2


def describe_identical_runs(trials: Sequence[KillTrial]) -> str:
    """Return the text for bitwise identical runs; it lists attributes that were lost even so."""
    plural, steps = "s" * (len(trials) != 1), [f"{trial.kill.step:,}" for trial in trials]
    text = (
        f"bit-identical: {len(trials)} kill{plural} at step{plural} {', '.join(steps[:-1])}"
        f"{' and ' * (len(steps) > 1)}{steps[-1]} resumed to the same weights, losses and validations"
    )
    if not any(trial.resumed_from for trial in trials):
        text += (
            "; but nothing had been saved before, so all started over: callbacks.checkpoint.every_n_steps=<N> saves "
            "within an epoch"
        )
    lost = {(part.owner, part.name): part for trial in trials for part in trial.comparison.lost}
    # Attributes that differ without an interruption, such as times, are not lost by the resume.
    changing = set().union(*(trial.comparison.changing for trial in trials))
    parts = [part for key, part in lost.items() if key not in changing]
    if not parts:
        return text
    lines = [f"lost at a resume, without a consequence so far: {line}" for line in _list_attributes(parts)]
    return _append_lines(text, lines, _advise_saving(parts))


def describe_different_run(trial: KillTrial) -> str:
    """Return the text for a resumed run that differs: the first place, the values, and the attributes not saved."""
    difference = trial.comparison.difference
    text = f"not bit-identical: killed at {trial.kill}, the run resumed from step {trial.resumed_from or 0:,} and "
    if difference is None:
        fix = _SAVING_ADVICE["loader"].format(read="the generator of its sampler or data set")
        return _append_lines(f"{text}its loader gave other batches, without a consequence so far", [], fix)
    text += f"first differs at {_describe_place(difference)}"
    parts = sorted(trial.comparison.lost, key=lambda part: part.kind != "own generator")
    if difference.find_first_part("batch"):  # then only data and loaders can be the cause: the batch comes first
        parts = [part for part in parts if part.owner.startswith(("data ", "loader "))]
    lines = [*_describe_values(difference), *(f"not saved: {line}" for line in _list_attributes(parts))]
    return _append_lines(
        text, lines, f"{_advise_saving(parts)}\nif that is not it, {_NO_ATTRIBUTE}" if parts else _NO_ATTRIBUTE
    )


def describe_unrepeatable_run(comparison: TraceComparison) -> str:
    """Return the text for two uninterrupted runs that differ."""
    difference = comparison.difference
    assert difference is not None
    text = f"your run differs from itself without any interruption: first at {_describe_place(difference)}"
    return _append_lines(text, _describe_values(difference), _REPEATABLE)


def describe_failed_run(trial: KillTrial) -> str:
    """Return the text for a run that ended with an error, after the kill or before."""
    how = "could not resume" if trial.resumed else "failed before it came there, where the same run had not failed"
    return _append_lines(f"the run killed at {trial.kill} {how}:", trial.failed.splitlines())


def describe_attribute(part: DifferingValue) -> str:
    """Return an attribute in words: its name, its owner and its two values."""
    what = "random generator" if part.kind == "own generator" else "attribute"
    role, _, rest = part.owner.partition(" ")
    name, _, path = rest.partition(" at ")
    article = {"callback": "the callback ", "loader": "the loader's " if path else "the loader "}.get(role, "")
    return f"{what} `{part.name}` of {article}{name}{f' ({path})' if path else ''} {_describe_change(part)}"


def _append_lines(text: str, lines: Sequence[str], advice: str = "") -> str:
    fix = ["fix: " + advice.replace("\n", "\n       ")] if advice else []
    return "\n  ".join([text, *lines, *fix])


def _describe_place(difference: TraceDifference) -> str:
    return _describe_line(difference.line) + (f", rank {difference.rank}" if difference.rank else "")


def _describe_line(line: TraceLine) -> str:
    return f"{_AFTER.get(line.kind, 'step')} {line.step:,}"


def _describe_values(difference: TraceDifference) -> list[str]:
    """Return the values that differ at the first place, a line for each kind."""
    if difference.missing:
        return [f"{_describe_line(difference.line)} is reached by one of the runs alone"]

    def describe_first(text: str, kind: str) -> list[str]:
        part = difference.find_first_part(kind)
        if part is None:
            return []
        more = sum(other.kind == part.kind for other in difference.parts) - 1
        first = text.format(name=part.name, change=_describe_change(part))
        return [f"{first}, and {more} more" if more and kind != "loss" else first]

    names = [part.name for part in difference.parts if part.kind == "generator"]
    batch = difference.find_first_part("batch")
    return [
        *describe_first("loss {change}", "loss"),
        # Only where no tensor differs: where the weights do, so does the optimizer's state.
        *(describe_first("first tensor: {name}", "tensor") or describe_first("first state: {name}", "optimizer")),
        *([f"random generators: {', '.join(names)}"] if names else []),
        *([_describe_batch(batch)] if batch else []),
        *describe_first("metric {name} {change}", "metric"),
    ]


def _describe_batch(part: DifferingValue) -> str:
    if part.was == part.now:
        return "batches: other values" + (" of the same samples" if part.was else "")
    # Not strict: one of the runs may have seen fewer samples.
    pairs = ((was, now) for was, now in zip(part.was, part.now, strict=False) if was != now)
    was, now = next(pairs, ("none", "none"))
    return f"batches: other samples, {now} instead of {was} first"


def _describe_change(part: DifferingValue) -> str:
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


def _list_attributes(parts: Sequence[DifferingValue]) -> list[str]:
    """Return the first few attributes in words, and the number of the others."""
    more = len(parts) - _MAX_ATTRIBUTES
    return [*map(describe_attribute, parts[:_MAX_ATTRIBUTES]), *([f"and {more} more"] if more > 0 else [])]


def _advise_saving(parts: Sequence[DifferingValue]) -> str:
    """Return the advice for lost attributes, one line for each different one."""
    return "\n".join(dict.fromkeys(_advise_saving_attribute(part) for part in parts[:_MAX_ATTRIBUTES]))


def _advise_saving_attribute(part: DifferingValue) -> str:
    role, _, rest = part.owner.partition(" ")
    name = part.name.partition("[")[0]
    if part.kind == "own generator":
        return _SAVING_ADVICE[role].format(
            name=name, read=f"the state of {name} (getstate, get_state or bit_generator.state)"
        )
    if role == "module" and part.value_kind == "tensor":
        return f"self.register_buffer('{name}', …) in place of self.{name} = …"
    # An attribute of an object inside of the module is not an attribute of `self`.
    inside = " at " in rest and role == "module"
    text = _SAVING_ADVICE[role].format(name=name, read=f"self.{name}" if role == "module" and not inside else name)
    number = isinstance(part.was, int | float) or _is_hex(part.was)
    return text + (f"; or self.register_buffer('{name}', torch.tensor(…))" if role == "module" and number else "")


# torch's own sentences, of `torch.use_deterministic_algorithms(True, warn_only=True)`; one names cuBLAS's setting.
_WARNING = re.compile(r"(\S+) does not have a deterministic implementation, but you set")
_CUBLAS = re.compile(r"Deterministic behavior was enabled .* CUBLAS_WORKSPACE_CONFIG")


@dataclass(frozen=True)
class DeterminismCost:
    """The findings of runs with deterministic kernels, next to the same run without.

    Attributes:
        operations: those that have no deterministic kernel on the device, by torch's names, sorted.
        slowdowns: how much longer a sample takes with deterministic kernels, as factors of pairs of runs; empty where
            the runs are too short to measure.
    """

    operations: tuple[str, ...]
    slowdowns: tuple[float, ...] = ()


def find_nondeterministic_operations(output: str) -> tuple[str, ...]:
    """Return the operations that torch has named in what a run printed; each once, sorted."""
    names = set(_WARNING.findall(output))
    if _CUBLAS.search(output):
        names.add("cuBLAS")
    return tuple(sorted(names))


def describe_determinism(cost: DeterminismCost) -> list[str]:
    """Return the lines about it for the report."""
    lines = ["kernels   each operation of this run has a deterministic one"]
    if cost.operations:
        lines = [
            f"kernels   without a deterministic one: {', '.join(cost.operations)}; where they add up in another order, "
            "a run does not repeat: use other operations in their place"
        ]
    if cost.slowdowns:
        changes = sorted((factor - 1) * 100 for factor in cost.slowdowns)
        span = f"{changes[0]:+.0f} to {changes[-1]:+.0f} %, {len(changes)} pairs of runs"
        # Pairs that contradict each other measure the machine, not the kernels.
        if changes[0] <= 0 <= changes[-1]:
            lines.append(f"cost      of trainer.deterministic=true: no more than the noise ({span})")
        else:
            word = "longer" if changes[0] > 0 else "less"
            lines.append(f"cost      of trainer.deterministic=true: a sample takes {word} ({span})")
    return lines
