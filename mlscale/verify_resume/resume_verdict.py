"""Describe the results of killed and resumed runs, in one sentence and lines below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlscale.verify_resume import trace_difference as words
from mlscale.verify_resume.kill_points import Kill
from mlscale.verify_resume.traces import Comparison

_REPEATABLE = (
    "what is drawn must follow from `seed`: look for random numbers that follow the clock and for files or sets in no "
    "order; on CUDA, trainer.deterministic=true"
)


@dataclass(frozen=True)
class Tried:
    """The result of a run that was killed and resumed.

    Attributes:
        kill: the kill point.
        went_on_from: the optimizer step from which it resumed; None where it took no step.
        comparison: with the run that was not killed.
        failed: the error with which it ended; empty where it was completed.
        resumed: True if it was killed, so that it had to resume.
    """

    kill: Kill
    went_on_from: int | None
    comparison: Comparison
    failed: str = ""
    resumed: bool = True

    @property
    def identical(self) -> bool:
        """True if its results are bitwise identical."""
        return not self.failed and self.comparison.difference is None

    @property
    def differs_before_the_kill(self) -> bool:
        """True if it differed from the other run before it was interrupted."""
        difference = self.comparison.difference
        return difference is not None and not difference.missing and difference.line.attempt < 2


def identical(tried: Sequence[Tried]) -> str:
    """Return the text for bitwise identical runs; it lists attributes that were lost even so."""
    plural = "s" * (len(tried) != 1)
    text = (
        f"bit-identical: {len(tried)} kill{plural} at step{plural} {_and([f'{each.kill.step:,}' for each in tried])} "
        "went on to the same weights, losses and validations"
    )
    if not any(each.went_on_from for each in tried):
        text += (
            "; but nothing had been saved before, so all started over: callbacks.checkpoint.every_n_steps=<N> saves "
            "within an epoch"
        )
    lost = {(part.owner, part.name): part for each in tried for _, part in each.comparison.lost}
    # Attributes that differ without an interruption, such as times, are not lost by the resume.
    changing = set().union(*(each.comparison.changing for each in tried))
    parts = [part for key, part in lost.items() if key not in changing]
    if not parts:
        return text
    lines = [f"lost at a resume, without a consequence so far: {line}" for line in words.listed(parts)]
    return _with_lines(text, [*lines, _fix(words.advice(parts))])


def different(tried: Tried) -> str:
    """Return the text for a resumed run that differs: the first place, the values, and the attributes not saved."""
    difference = tried.comparison.difference
    assert difference is not None
    text = (
        f"not bit-identical: killed at {tried.kill}, the run went on from step {tried.went_on_from or 0:,} and first "
        f"differs at {words.where(difference)}"
    )
    parts = words.causes(tried.comparison)
    if difference.first("batch"):  # then only data and loaders can be the cause: the batch comes first
        parts = [part for part in parts if part.owner.startswith(("data ", "loader "))]
    lines = [*words.computed(difference), *(f"not saved: {line}" for line in words.listed(parts))]
    fix = f"{words.advice(parts)}\nif that is not it, {words.NO_ATTRIBUTE}" if parts else words.NO_ATTRIBUTE
    return _with_lines(text, [*lines, _fix(fix)])


def differs_from_itself(comparison: Comparison) -> str:
    """Return the text for two uninterrupted runs that differ."""
    difference = comparison.difference
    assert difference is not None
    text = f"your run differs from itself without any interruption: first at {words.where(difference)}"
    lines = words.computed(difference) + [f"differs, too: {line}" for line in words.listed(words.causes(comparison))]
    return _with_lines(text, [*lines, _fix(_REPEATABLE)])


def failed(tried: Tried) -> str:
    """Return the text for a run that ended with an error, after the kill or before."""
    how = "could not go on" if tried.resumed else "failed before it came there, where the same run had not failed"
    return _with_lines(f"the run killed at {tried.kill} {how}:", tried.failed.splitlines())


def _with_lines(text: str, lines: Sequence[str]) -> str:
    return "\n  ".join([text, *lines])


def _fix(advice: str) -> str:
    return "fix: " + advice.replace("\n", "\n       ")


def _and(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
