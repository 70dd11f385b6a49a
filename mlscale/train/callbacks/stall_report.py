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

from mlscale.culprit import find_innermost_call
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.host import processes as process
from mlscale.train import thread_stacks as stacks

_REQUEST_FILE = "asked.json"
_WAIT_SECONDS = 3.0  # for the other ranks' answers; they check once a second
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class RankProgress:
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
class RankState:
    """The state of a rank, from its answer.

    Attributes:
        location: the line at which its main thread is.
        waits: whether that is a collective.
        debugged: whether a debugger is active there.
        stacks: of all its threads.
        answer: its progress; None for one that could not answer.
    """

    location: str
    waits: bool
    debugged: bool
    stacks: str
    answer: RankProgress | None = None


@dataclass(frozen=True)
class Rank:
    """This rank, and its facts about the others.

    Attributes:
        facts: host, process id and its start; of each rank in `others`.
    """

    number: int
    facts: dict[str, Any]
    others: Sequence[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def create_local(cls, number: int) -> Rank:
        facts = {"host": socket.gethostname(), **process.identify_process()}
        return cls(number, facts, [facts])

    def add_others(self, others: Sequence[dict[str, Any]]) -> Rank:
        return Rank(self.number, self.facts, others)

    def write_answer(self, folder: Path, answer: RankProgress) -> None:
        """Write this rank's answer where another rank has requested it, once."""
        mine = folder / "stall" / f"rank{self.number}.json"
        if not (folder / "stall" / _REQUEST_FILE).exists() or mine.exists():
            return
        with contextlib.suppress(OSError):  # the request was withdrawn
            # Renamed into place: the rank that reads it never sees half an answer.
            aside = mine.with_suffix(".tmp")
            aside.write_text(json.dumps(asdict(_collect_state(answer))))
            aside.replace(mine)


def _collect_state(answer: RankProgress | None) -> RankState:
    calls = stacks.get_main_thread_calls()
    waits, debugged = stacks.is_in_collective(calls), stacks.is_in_debugger(calls)
    return RankState(find_innermost_call(calls), waits, debugged, stacks.format_thread_stacks(), answer)


@dataclass(frozen=True)
class StallReport:
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

    def print_report(self) -> None:
        saved_note = [f"these lines are kept in {self.path}"] if self.path else []
        self.print_stall_warning(
            "\n".join([self.sentence, *(f"  {line}" for line in self.ranks), self.stacks, *saved_note])
        )

    @staticmethod
    def print_stall_warning(text: str) -> None:
        with contextlib.suppress(OSError):
            tqdm.write(f"warning   {text}", file=sys.stderr)
            sys.stderr.flush()

    def build_stall_error(self) -> MLScaleError:
        """Return the error for a run that is to end."""
        return MLScaleError(
            self.sentence,
            where=str(self.path or ""),
            why="\n         ".join(self.ranks),
            fix="mlscale runs resume last, from the last checkpoint: callbacks.stall.stop=false only warns",
            exit=Exit.ENVIRONMENT,
        )


def withdraw_request(folder: Path) -> None:
    """Remove a request, with its answers."""
    shutil.rmtree(folder / "stall", ignore_errors=True)


def report_stall(rank: Rank, folder: Path, answer: RankProgress, step_s: float | None) -> StallReport | None:
    """Request the state of all ranks, and write the report.

    Returns:
        The report; None where another rank has requested one already, or a debugger is active.

    Args:
        folder: of the run's logs.
        answer: this rank's progress.
        step_s: the time of a step; None where none was taken.
    """
    request_folder = folder / "stall"
    try:
        # mkdir is atomic: of the ranks that notice a stall one alone gets through.
        request_folder.mkdir(parents=True)
        (request_folder / _REQUEST_FILE).write_text(json.dumps({"rank": rank.number}))
    except FileExistsError:
        return None
    except OSError:
        pass  # a full disk: the report holds this rank alone
    try:
        states = _request_states(rank, request_folder, answer)
    finally:
        withdraw_request(folder)
    if any(state.debugged for state in states.values()):
        return None
    return _write_report(_compose_report(rank, states, answer, step_s), folder)


def _request_states(rank: Rank, request_folder: Path, answer: RankProgress) -> dict[int, RankState]:
    states = {rank.number: _collect_state(answer)}
    until = time.monotonic() + _WAIT_SECONDS
    while len(states) < len(rank.others) and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
        for number in set(range(len(rank.others))) - set(states):
            with contextlib.suppress(OSError, ValueError):
                response = json.loads((request_folder / f"rank{number}.json").read_text())
                states[number] = RankState(**{**response, "answer": RankProgress(**response["answer"])})
    for number, facts in enumerate(rank.others):
        if number not in states:
            is_here = facts["host"] == rank.facts["host"]
            has_ended = is_here and not process.is_alive(facts["pid"], facts["pid_start"])
            innermost = "it has ended" if has_ended else "it does not answer; its own stacks are on standard error"
            states[number] = RankState(innermost, False, False, "")
    return dict(sorted(states.items()))


def _compose_report(
    rank: Rank, states: dict[int, RankState], answer: RankProgress, step_s: float | None
) -> StallReport:
    several = len(states) > 1
    took = f"a step takes {step_s:.2g} s" if step_s is not None else "none was taken yet"
    lines, parts = [], []
    for number, state in states.items():
        far = state.answer
        counts = f"{far.phase}, batch {far.begun:,} begun, {far.done:,} done; " if far else ""
        lines.append(f"rank {number}: {counts}{state.location}{' (waits for other ranks)' if state.waits else ''}")
        pid = rank.others[number]["pid"]
        parts.append(f"--- stacks of rank {number}, process {pid}\n{state.stacks}")
    # A rank inside a collective waits for those that are not: these are the likely cause.
    suspects = [number for number, state in states.items() if not state.waits] if several else []
    who = ""
    if 0 < len(suspects) < len(states):  # only then do the others wait for them
        one = len(suspects) == 1
        who = f": rank{'' if one else 's'} {', '.join(map(str, suspects))} {'is' if one else 'are'} in the way"
    others = [facts for number, facts in enumerate(rank.others) if number != rank.number]
    hung = [facts for facts in others if facts["host"] == rank.facts["host"]]
    return StallReport(
        f"no step for {answer.idle_s:,.0f} s, {took}{who}",
        lines,
        "\n".join(parts),
        None,
        hung,
    )


def _write_report(stall: StallReport, folder: Path) -> StallReport:
    number = 1
    while (path := folder / f"stall-{number}.txt").exists():
        number += 1
    try:
        path.write_text("\n".join([stall.sentence, *stall.ranks, stall.stacks]) + "\n")
    except OSError:
        return stall
    # Stacks quote lines of source: for the user alone.
    os.chmod(path, 0o600)
    return StallReport(stall.sentence, stall.ranks, stall.stacks, path, stall.hung)
