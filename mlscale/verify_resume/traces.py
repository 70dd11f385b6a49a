"""Read and compare traces of runs: find the first difference of a run from another one.

`mlscale.verify_resume.trace.Trace` writes them: a file for each rank, a line for each boundary, attempt by attempt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_STATE_KINDS = ("begin", "resumed", "step", "epoch", "end")  # lines with the entire state of a run
STARTS = ("begin", "resumed")  # of an epoch; of an attempt that resumes within one
_ABSENT = "absent"


@dataclass(frozen=True)
class TraceLine:
    """A line of a trace: its kind, the optimizer steps so far, the attempt, and its content."""

    kind: str
    step: int
    attempt: int
    content: Mapping[str, Any]


@dataclass(frozen=True)
class DifferingValue:
    """A value that differs.

    Attributes:
        kind: attribute or own generator (of an object of the run), generator (a global one), batch, loss, metric,
            tensor (parameter or buffer) or optimizer.
        name: of the attribute, generator, metric or tensor.
        owner: the object that an attribute belongs to: `<role> <class> at <place>`.
        was, now: its value in both runs: a number, or a digest.
        value_kind: the kind of an attribute: value, tensor or generator.
    """

    kind: str
    name: str
    owner: str = ""
    was: Any = None
    now: Any = None
    value_kind: str = ""


@dataclass(frozen=True)
class TraceDifference:
    """The first place at which a run computed something else.

    Attributes:
        rank: of the process.
        line: the line of the run that differs, or the line of the other run without a counterpart.
        parts: the values that differ there, possible causes before effects.
        missing: True if the run has not reached this place.
    """

    rank: int
    line: TraceLine
    parts: tuple[DifferingValue, ...] = ()
    missing: bool = False

    def find_first_part(self, *kinds: str) -> DifferingValue | None:
        """Return the first part of one of these kinds; None where there is none."""
        return next((part for part in self.parts if part.kind in kinds), None)


@dataclass
class TraceComparison:
    """The comparison of a run with another one.

    Attributes:
        difference: the first one in what was computed: batches, generators, losses, weights, optimizers, metrics.
        lost: attributes that differ right after a resume: what agrees there and differs later is an effect.
        changing: attributes that differ without an interruption, such as times and process numbers.
    """

    difference: TraceDifference | None = None
    lost: list[DifferingValue] = field(default_factory=list)
    changing: set[tuple[str, str]] = field(default_factory=set)


def read_traces(folder: Path) -> list[list[TraceLine]]:
    """Return the lines of a trace by rank, in the order of writing; a line that a kill cut short is left out."""
    # By number: as texts, rank10 comes before rank2.
    files = sorted(folder.glob("rank*.jsonl"), key=lambda path: int(path.stem.removeprefix("rank")))
    return [list(_parse_trace_lines(path)) for path in files]


def _parse_trace_lines(path: Path) -> Iterator[TraceLine]:
    attempt = 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(text)
        except ValueError:
            continue
        attempt += record["kind"] == "attempt"
        yield TraceLine(record["kind"], record.get("step", 0), attempt, record)


def find_resumed_step(lines: list[TraceLine], attempt: int) -> int | None:
    """Return the optimizer step at which an attempt began; None where it ended before."""
    return next((line.step for line in lines if line.attempt == attempt and line.kind in STARTS), None)


def compare_traces(reference: list[list[TraceLine]], other: list[list[TraceLine]]) -> TraceComparison:
    """Compare a run, interrupted or not, with one that was not."""
    result = TraceComparison()
    differences = []
    for rank, (whole, lines) in enumerate(zip(reference, other, strict=False)):
        differences.append(_compare_rank(rank, whole, lines, result))
    if len(other) < len(reference):
        differences.append(TraceDifference(len(other), reference[len(other)][0], missing=True))
    differing = [difference for difference in differences if difference is not None]
    # Of all ranks: later differences on other ranks may be effects of the first one.
    result.difference = min(differing, key=_get_position, default=None)
    return result


def _get_position(difference: TraceDifference) -> tuple[bool, int, int]:
    return difference.missing, difference.line.attempt, difference.line.step


def _compare_rank(
    rank: int, whole: list[TraceLine], lines: list[TraceLine], result: TraceComparison
) -> TraceDifference | None:
    known = {(line.kind, line.step): line for line in whole}
    reached = set()
    attempt = 1
    for line in lines:
        if line.kind not in (*_STATE_KINDS, "validation"):
            continue
        # An attempt that resumes within an epoch begins with the state after a step of the other run.
        match = known.get(("step" if line.kind == "resumed" else line.kind, line.step))
        if match is None:
            return TraceDifference(rank, line, missing=True)
        reached.add((match.kind, match.step))
        own = list(_compare_attributes(match, line)) if line.kind in _STATE_KINDS else []
        # Before any interruption: what differs here differs between any two runs.
        if line.attempt == 1:
            result.changing |= {(part.owner, part.name) for part in own}
        elif line.attempt > attempt:  # its first line
            noted = {(part.owner, part.name) for part in result.lost} | result.changing
            result.lost += [part for part in own if (part.owner, part.name) not in noted]
        attempt = line.attempt
        if parts := list(_compare_computed(match, line)):
            return TraceDifference(rank, line, tuple(parts))
    left = [line for key, line in known.items() if key not in reached and line.kind in _STATE_KINDS]
    return TraceDifference(rank, left[0], missing=True) if left else None


def _compare_attributes(match: TraceLine, line: TraceLine) -> Iterator[DifferingValue]:
    """Yield attributes and generators of the run's objects that differ."""
    before, now = match.content["own"], line.content["own"]
    for owner in {**before, **now}:
        one, other = before.get(owner, {}), now.get(owner, {})
        for name in {**one, **other}:
            was, is_now = one.get(name, ["", _ABSENT]), other.get(name, ["", _ABSENT])
            if was[1] != is_now[1]:
                value_kind = was[0] or is_now[0]
                kind = "own generator" if value_kind == "generator" else "attribute"
                yield DifferingValue(kind, name, owner, was[1], is_now[1], value_kind)


def _compare_computed(match: TraceLine, line: TraceLine) -> Iterator[DifferingValue]:
    """Yield computed values that differ, causes first. At the start of an attempt batches and losses do not exist."""
    before, now, began = match.content, line.content, line.kind in STARTS
    if line.kind != "validation":
        if not began:
            for index, (was, is_now) in enumerate(_zip_padded(before["batches"], now["batches"])):
                if was != is_now:
                    yield DifferingValue("batch", str(index), "", before["keys"], now["keys"])
        yield from _compare_entries("generator", before["generators"], now["generators"])
        if not began:
            for index, (was, is_now) in enumerate(_zip_padded(before["losses"], now["losses"])):
                if was != is_now:
                    yield DifferingValue("loss", str(index), "", was, is_now)
        yield from _compare_entries("tensor", before["tensors"], now["tensors"])
        yield from _compare_entries("optimizer", before["optimizer"], now["optimizer"])
    yield from _compare_entries("metric", before["metrics"], now["metrics"])


def _compare_entries(kind: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[DifferingValue]:
    for name in {**before, **now}:
        was, is_now = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if was != is_now:
            yield DifferingValue(kind, name, "", was, is_now)


def _zip_padded(one: list[str], other: list[str]) -> Iterator[tuple[str, str]]:
    for index in range(max(len(one), len(other))):
        yield tuple((values[index] if index < len(values) else _ABSENT) for values in (one, other))  # type: ignore[misc]
