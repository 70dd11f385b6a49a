"""Describe the results of killed and resumed runs, in one sentence and lines below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlscale.verify_resume import trace_difference as words
from mlscale.verify_resume.kill_points import KillPoint
from mlscale.verify_resume.traces import TraceComparison

_REPEATABLE = (
    "what is drawn must follow from `seed`: look for random numbers that follow the clock and for files or sets in no "
    "order; on CUDA, trainer.deterministic=true"
)


@dataclass(frozen=True)
class KillTrial:
    """The result of a run that was killed and resumed.

    Attributes:
        kill: the kill point.
        resumed_from: the optimizer step from which it resumed; None where it took no step.
        comparison: with the run that was not killed.
        failed: the error with which it ended; empty where it was completed.
        resumed: True if it was killed, so that it had to resume.
    """

    kill: KillPoint
    resumed_from: int | None
    comparison: TraceComparison
    failed: str = ""
    resumed: bool = True

    @property
    def is_identical(self) -> bool:
        """True if its results are bitwise identical."""
        return not self.failed and self.comparison.difference is None

    @property
    def differs_before_the_kill(self) -> bool:
        """True if it differed from the other run before it was interrupted."""
        difference = self.comparison.difference
        return difference is not None and not difference.missing and difference.line.attempt < 2


def describe_identical_runs(trials: Sequence[KillTrial]) -> str:
    """Return the text for bitwise identical runs; it lists attributes that were lost even so."""
    plural = "s" * (len(trials) != 1)
    text = (
        f"bit-identical: {len(trials)} kill{plural} at step{plural} "
        f"{_join_with_and([f'{trial.kill.step:,}' for trial in trials])} "
        "resumed to the same weights, losses and validations"
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
    lines = [f"lost at a resume, without a consequence so far: {line}" for line in words.list_attributes(parts)]
    return _append_lines(text, [*lines, _format_fix(words.advise_saving(parts))])


def describe_different_run(trial: KillTrial) -> str:
    """Return the text for a resumed run that differs: the first place, the values, and the attributes not saved."""
    difference = trial.comparison.difference
    assert difference is not None
    text = (
        f"not bit-identical: killed at {trial.kill}, the run resumed from step {trial.resumed_from or 0:,} and first "
        f"differs at {words.describe_location(difference)}"
    )
    parts = sorted(trial.comparison.lost, key=lambda part: part.kind != "own generator")
    if difference.find_first_part("batch"):  # then only data and loaders can be the cause: the batch comes first
        parts = [part for part in parts if part.owner.startswith(("data ", "loader "))]
    lines = [
        *words.describe_computed_values(difference),
        *(f"not saved: {line}" for line in words.list_attributes(parts)),
    ]
    fix = f"{words.advise_saving(parts)}\nif that is not it, {words.NO_ATTRIBUTE}" if parts else words.NO_ATTRIBUTE
    return _append_lines(text, [*lines, _format_fix(fix)])


def describe_unrepeatable_run(comparison: TraceComparison) -> str:
    """Return the text for two uninterrupted runs that differ."""
    difference = comparison.difference
    assert difference is not None
    text = f"your run differs from itself without any interruption: first at {words.describe_location(difference)}"
    return _append_lines(text, [*words.describe_computed_values(difference), _format_fix(_REPEATABLE)])


def describe_failed_run(trial: KillTrial) -> str:
    """Return the text for a run that ended with an error, after the kill or before."""
    how = "could not resume" if trial.resumed else "failed before it came there, where the same run had not failed"
    return _append_lines(f"the run killed at {trial.kill} {how}:", trial.failed.splitlines())


def _append_lines(text: str, lines: Sequence[str]) -> str:
    return "\n  ".join([text, *lines])


def _format_fix(advice: str) -> str:
    return "fix: " + advice.replace("\n", "\n       ")


def _join_with_and(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
