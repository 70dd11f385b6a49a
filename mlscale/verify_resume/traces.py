"""Read and compare traces of runs: find the first difference of a run from another one.

`mlscale.verify_resume.trace.Trace` writes them: a file for each rank, a line for each boundary, attempt by attempt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LOOKS = ("begin", "resumed", "step", "epoch", "end")  # lines with the entire state of a run
STARTS = ("begin", "resumed")  # of an epoch; of an attempt that resumes within one
_ABSENT = "absent"


@dataclass(frozen=True)
class Line:
    """A line of a trace: its kind, the optimizer steps so far, the attempt, and its content."""

    kind: str
    step: int
    attempt: int
    holds: Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A value that differs.

    Attributes:
        kind: attribute or own generator (of an object of the run), generator (a global one), batch, loss, metric,
            tensor (parameter or buffer) or optimizer.
        name: of the attribute, generator, metric or tensor.
        owner: the object that an attribute belongs to: `<role> <class> at <place>`.
        was, now: its value in both runs: a number, or a digest.
        of: the kind of an attribute: value, tensor or generator.
    """

    kind: str
    name: str
    owner: str = ""
    was: Any = None
    now: Any = None
    of: str = ""


@dataclass(frozen=True)
class Difference:
    """The first place at which a run computed something else.

    Attributes:
        rank: of the process.
        line: the line of the run that differs, or the line of the other run without a counterpart.
        parts: the values that differ there, possible causes before effects.
        missing: True if the run has not reached this place.
    """

    rank: int
    line: Line
    parts: tuple[Part, ...] = ()
    missing: bool = False

    def first(self, *kinds: str) -> Part | None:
        """Return the first part of one of these kinds; None where there is none."""
        return next((part for part in self.parts if part.kind in kinds), None)


@dataclass
class Comparison:
    """The comparison of a run with another one.

    Attributes:
        difference: the first one in what was computed: batches, generators, losses, weights, optimizers, metrics.
        lost: attributes that first differ after an interruption, with the line, in order.
        changing: attributes that differ without an interruption, such as times and process numbers.
    """

    difference: Difference | None = None
    lost: list[tuple[Line, Part]] = field(default_factory=list)
    changing: set[tuple[str, str]] = field(default_factory=set)


def read(folder: Path) -> list[list[Line]]:
    """Return the lines of a trace by rank, in the order of writing; a line that a kill cut short is left out."""
    # By number: as texts, rank10 comes before rank2.
    files = sorted(folder.glob("rank*.jsonl"), key=lambda path: int(path.stem.removeprefix("rank")))
    return [list(_lines(path)) for path in files]


def _lines(path: Path) -> Iterator[Line]:
    attempt = 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(text)
        except ValueError:
            continue
        attempt += record["kind"] == "attempt"
        yield Line(record["kind"], record.get("step", 0), attempt, record)


def went_on_from(lines: list[Line], attempt: int) -> int | None:
    """Return the optimizer step at which an attempt began; None where it ended before."""
    return next((line.step for line in lines if line.attempt == attempt and line.kind in STARTS), None)


def compare(reference: list[list[Line]], other: list[list[Line]]) -> Comparison:
    """Compare a run, interrupted or not, with one that was not."""
    result = Comparison()
    found = []
    for rank, (whole, lines) in enumerate(zip(reference, other, strict=False)):
        found.append(_compare_rank(rank, whole, lines, result))
    if len(other) < len(reference):
        found.append(Difference(len(other), reference[len(other)][0], missing=True))
    differing = [difference for difference in found if difference is not None]
    # Of all ranks: later differences on other ranks may be effects of the first one.
    result.difference = min(differing, key=_position, default=None)
    return result


def _position(difference: Difference) -> tuple[bool, int, int]:
    return difference.missing, difference.line.attempt, difference.line.step


def _compare_rank(rank: int, whole: list[Line], lines: list[Line], result: Comparison) -> Difference | None:
    known = {(line.kind, line.step): line for line in whole}
    reached = set()
    for line in lines:
        if line.kind not in (*_LOOKS, "validation"):
            continue
        # An attempt that resumes within an epoch begins with the state after a step of the other run.
        match = known.get(("step" if line.kind == "resumed" else line.kind, line.step))
        if match is None:
            return Difference(rank, line, missing=True)
        reached.add((match.kind, match.step))
        own = list(_own(match, line)) if line.kind in _LOOKS else []
        # Before any interruption: what differs here differs between any two runs.
        if line.attempt == 1:
            result.changing |= {(part.owner, part.name) for part in own}
        noted = {(part.owner, part.name) for _, part in result.lost} | result.changing
        result.lost += [(line, part) for part in own if (part.owner, part.name) not in noted]
        if parts := list(_computed(match, line)):
            return Difference(rank, line, tuple(parts))
    left = [line for key, line in known.items() if key not in reached and line.kind in _LOOKS]
    return Difference(rank, left[0], missing=True) if left else None


def _own(match: Line, line: Line) -> Iterator[Part]:
    """Yield attributes and generators of the run's objects that differ."""
    before, now = match.holds["own"], line.holds["own"]
    for owner in {**before, **now}:
        one, other = before.get(owner, {}), now.get(owner, {})
        for name in {**one, **other}:
            was, is_now = one.get(name, ["", _ABSENT]), other.get(name, ["", _ABSENT])
            if was[1] != is_now[1]:
                of = was[0] or is_now[0]
                kind = "own generator" if of == "generator" else "attribute"
                yield Part(kind, name, owner, was[1], is_now[1], of)


def _computed(match: Line, line: Line) -> Iterator[Part]:
    """Yield computed values that differ, causes first. At the start of an attempt batches and losses do not exist."""
    before, now, began = match.holds, line.holds, line.kind in STARTS
    if line.kind != "validation":
        if not began:
            for index, (was, is_now) in enumerate(_pairs(before["batches"], now["batches"])):
                if was != is_now:
                    yield Part("batch", str(index), "", before["keys"], now["keys"])
        yield from _differing("generator", before["generators"], now["generators"])
        if not began:
            for index, (was, is_now) in enumerate(_pairs(before["losses"], now["losses"])):
                if was != is_now:
                    yield Part("loss", str(index), "", was, is_now)
        yield from _differing("tensor", before["tensors"], now["tensors"])
        yield from _differing("optimizer", before["optimizer"], now["optimizer"])
    yield from _differing("metric", before["metrics"], now["metrics"])


def _differing(kind: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Part]:
    for name in {**before, **now}:
        was, is_now = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if was != is_now:
            yield Part(kind, name, "", was, is_now)


def _pairs(one: list[str], other: list[str]) -> Iterator[tuple[str, str]]:
    for index in range(max(len(one), len(other))):
        yield tuple((each[index] if index < len(each) else _ABSENT) for each in (one, other))  # type: ignore[misc]
