"""Reports of stalled runs: ranks answer through files of the run folder, for a collective would hang as well."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mlscale.errors import Exit, MLScaleError
from mlscale.runs import processes as process
from mlscale.train import thread_stacks as stacks

_ASKED = "asked.json"
_WAIT_SECONDS = 3.0  # for the other ranks' answers; they check once a second
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Answer:
    """The progress of a rank.

    Attributes:
        phase: training, validate, saving a checkpoint, ….
        begun, done: batches of the whole run.
        idle_s: seconds since either changed.
    """

    phase: str
    begun: int
    done: int
    idle_s: float


@dataclass(frozen=True)
class Said:
    """The state of a rank, from its answer or from its backstop.

    Attributes:
        place: the line at which its main thread is.
        waits: whether that is a collective.
        debugged: whether a debugger is active there.
        stacks: of all its threads.
        answer: its progress; None for one that could not answer.
    """

    place: str
    waits: bool
    debugged: bool
    stacks: str
    answer: Answer | None = None


@dataclass(frozen=True)
class Rank:
    """This rank, and its facts about the others.

    Attributes:
        facts: host, process id, its start, and the file its backstop writes to; of each rank in `others`.
    """

    number: int
    facts: dict[str, Any]
    others: Sequence[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def here(cls, number: int, backstop: str) -> Rank:
        facts = {"host": socket.gethostname(), **process.this(), "backstop": backstop}
        return cls(number, facts, [facts])

    def among(self, others: Sequence[dict[str, Any]]) -> Rank:
        return Rank(self.number, self.facts, others)

    def answer(self, folder: Path, answer: Answer) -> None:
        """Write this rank's answer where another rank has requested it, once."""
        mine = folder / "stall" / f"rank{self.number}.json"
        if not (folder / "stall" / _ASKED).exists() or mine.exists():
            return
        with contextlib.suppress(OSError):  # the request was withdrawn
            # Renamed into place: the rank that reads it never sees half an answer.
            aside = mine.with_suffix(".tmp")
            aside.write_text(json.dumps(asdict(_here(answer))))
            aside.replace(mine)


def _here(answer: Answer | None) -> Said:
    calls = stacks.main_thread()
    waits, debugged = stacks.in_a_collective(calls), stacks.in_a_debugger(calls)
    return Said(stacks.place(calls), waits, debugged, stacks.of_all_threads(), answer)


@dataclass(frozen=True)
class Report:
    """A stall, as it is reported.

    Attributes:
        sentence: the stall in one sentence.
        ranks: a line for each.
        stacks: of all threads of all ranks.
        path: the file that holds all of it; None where it could not be written.
        hung: the other ranks of this machine: host, process id and start.
    """

    sentence: str
    ranks: Sequence[str]
    stacks: str
    path: Path | None
    hung: Sequence[dict[str, Any]] = ()

    def show(self) -> None:
        kept = [f"these lines are kept in {self.path}"] if self.path else []
        self.say("\n".join([self.sentence, *(f"  {line}" for line in self.ranks), self.stacks, *kept]))

    @staticmethod
    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            tqdm.write(f"warning   {text}", file=sys.stderr)
            sys.stderr.flush()

    def error(self) -> MLScaleError:
        """Return the error for a run that is to end."""
        return MLScaleError(
            self.sentence,
            where=str(self.path or ""),
            why="\n         ".join(self.ranks),
            fix="mlscale runs resume last goes on from the last checkpoint; callbacks.stall.stop=false only tells",
            exit=Exit.ENVIRONMENT,
        )


def withdraw(folder: Path) -> None:
    """Remove a request, with its answers."""
    shutil.rmtree(folder / "stall", ignore_errors=True)


def report(rank: Rank, folder: Path, answer: Answer, step_s: float | None) -> Report | None:
    """Request the state of all ranks, and write the report.

    Returns:
        The report; None where another rank has requested one already, or a debugger is active.

    Args:
        folder: of the run's logs.
        answer: this rank's progress.
        step_s: the time of a step; None where none was taken.
    """
    asked = folder / "stall"
    try:
        # mkdir is atomic: of the ranks that notice a stall one alone gets through.
        asked.mkdir(parents=True)
        (asked / _ASKED).write_text(json.dumps({"rank": rank.number}))
    except FileExistsError:
        return None
    except OSError:
        pass  # a full disk: the report holds this rank alone
    try:
        said = _ask(rank, asked, answer)
    finally:
        withdraw(folder)
    if any(each.debugged for each in said.values()):
        return None
    return _write(_compose(rank, said, answer, step_s), folder)


def _ask(rank: Rank, asked: Path, answer: Answer) -> dict[int, Said]:
    said = {rank.number: _here(answer)}
    until = time.monotonic() + _WAIT_SECONDS
    while len(said) < len(rank.others) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        for number in set(range(len(rank.others))) - set(said):
            with contextlib.suppress(OSError, ValueError):
                found = json.loads((asked / f"rank{number}.json").read_text())
                said[number] = Said(**{**found, "answer": Answer(**found["answer"])})
    for number, facts in enumerate(rank.others):
        if number not in said:
            said[number] = _from_outside(facts, rank.facts["host"])
    return dict(sorted(said.items()))


def _from_outside(facts: dict[str, Any], host: str) -> Said:
    """Return the state of a rank that does not answer, from the file that its backstop has written."""
    text = ""
    calls: list[tuple[str, int, str]] = []
    if facts["host"] == host:
        if not process.alive(facts["pid"], facts["pid_start"]):
            return Said("it has ended", False, False, "")
        with contextlib.suppress(OSError):
            text = Path(facts["backstop"]).read_text(errors="replace")
            calls = stacks.from_backstop(text)
    held = f"{stacks.place(calls)}, which holds Python's lock" if calls else ""
    return Said(held or "it does not answer", False, False, text)


def _compose(rank: Rank, said: dict[int, Said], answer: Answer, step_s: float | None) -> Report:
    several = len(said) > 1
    took = f"a step takes {step_s:.2g} s" if step_s is not None else "none was taken yet"
    lines, parts = [], []
    for number, each in said.items():
        far = each.answer
        counts = f"{far.phase}, batch {far.begun:,} begun, {far.done:,} done; " if far else ""
        lines.append(f"rank {number}: {counts}{each.place}{' (waits for other ranks)' if each.waits else ''}")
        pid = rank.others[number]["pid"]
        parts.append(f"--- stacks of rank {number}, process {pid}\n{each.stacks}")
    # A rank inside a collective waits for those that are not: these are the likely cause.
    suspects = [number for number, each in said.items() if not each.waits] if several else []
    who = ""
    if 0 < len(suspects) < len(said):  # only then do the others wait for them
        one = len(suspects) == 1
        who = f": rank{'' if one else 's'} {', '.join(map(str, suspects))} {'is' if one else 'are'} in the way"
    others = [facts for number, facts in enumerate(rank.others) if number != rank.number]
    hung = [facts for facts in others if facts["host"] == rank.facts["host"]]
    return Report(
        f"no step for {answer.idle_s:,.0f} s, {took}{who}",
        lines,
        "\n".join(parts),
        None,
        hung,
    )


def _write(told: Report, folder: Path) -> Report:
    number = 1
    while (path := folder / f"stall-{number}.txt").exists():
        number += 1
    try:
        path.write_text("\n".join([told.sentence, *told.ranks, told.stacks]) + "\n")
    except OSError:
        return told
    # Stacks quote lines of source: for the user alone.
    os.chmod(path, 0o600)
    return Report(told.sentence, told.ranks, told.stacks, path, told.hung)
