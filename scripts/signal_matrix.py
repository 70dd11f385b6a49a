"""Stop signals by who gets them, the layout and the moment: does the run save, report that truly, and resume?

For `python -m scripts.bench_resume --signals`, and the tests.
"""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files
from scripts import run_phases
from scripts.kill_processes import find_processes
from scripts.resume_layouts import FSDP, PARTS, Attempt, find_run, wait_for_end

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 143, signal.SIGUSR1: 75}
"""The exit codes of a run that has saved, by the signal that has stopped it."""
RECEIVERS = ("command", "group")
LAYOUTS = ("1", "2", FSDP, PARTS)
CASES = tuple(product(CODES, RECEIVERS, LAYOUTS))
JOB_RECEIVERS = ("--full", "--batch")
"""Who gets a signal while a job of SLURM starts, as scancel has it: all of its processes, or its script."""
_LEFT_SECONDS = 3.0  # that processes have to end after the command; on an idle machine they are gone before it


@dataclass
class Stop:
    """A run that was stopped.

    Attributes:
        signum, receiver, layout: the case.
        phase: the moment of the signal.
        problems: what is not as promised; empty for a stop as it should be.
        seconds: until the command had ended.
    """

    signum: signal.Signals
    receiver: str
    layout: str
    phase: str
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def send_signal(pid: int, signum: int, receiver: str) -> None:
    """Send a signal to a command, which leads its process group, or to that group as `timeout` does, which sends it to
    the command as well."""
    os.kill(pid, signum)
    if receiver == "group":
        os.killpg(pid, signum)


def stop_attempt(attempt: Attempt, stop: Stop, step: int, delay: float) -> None:
    """Wait until a started attempt is in the phase of `stop`, `step` steps are done and `delay` seconds are over; stop
    it, and note what is not as promised."""
    deadline = time.monotonic() + 600
    while stop.phase != "start-up" and not attempt.is_over() and time.monotonic() < deadline:
        phase, done = run_phases.read_moment(attempt.folder)
        if phase == stop.phase and done >= step:
            break
        time.sleep(0.001)
    time.sleep(delay)
    begin = time.monotonic()
    if attempt.is_over():
        stop.phase = "exit"  # the moment was too short, or did not come
    else:
        send_signal(attempt.process.pid, stop.signum, stop.receiver)
    if not wait_for_end(attempt):
        stop.problems.append("hung")
        attempt.end()
        return
    stop.seconds = time.monotonic() - begin
    stop.problems += find_problems(attempt.folder, attempt.process.returncode, stop)
    time_left = time.monotonic() + _LEFT_SECONDS
    while (left := find_processes(attempt.name, all_kinds=True)) and time.monotonic() < time_left:
        time.sleep(0.05)
    stop.problems += [f"left: {b' '.join(process.words)[:80]!r}" for process in left]


def find_problems(folder: Path, code: int, stop: Stop) -> list[str]:
    """Return what is wrong with the end of a command: its exit code and message, against what the run folder holds."""
    printed = (folder / "output").read_text()
    has_begun = any(folder.glob("runs/*/*/run.json"))
    files = list_checkpoint_files(find_run(folder) / "checkpoints") if has_begun else []
    saved = max((file.record.step for file in files if file.record), default=0)
    problems = []
    message = re.search(rf"stopped by {stop.signum.name} after optimizer step (\d+), saved to", printed)
    if message and int(message[1]) > saved:
        problems.append(f"says step {message[1]}, has step {saved}")
    expected = {CODES[stop.signum]}
    if not message and stop.phase == "exit":
        expected = {0, 130} if stop.signum == signal.SIGINT else {0}  # it was done
    elif not message:
        # Before the training, the system's own end is as good, of HUP that by TERM: there is nothing to save.
        expected |= {-stop.signum, 128 - CODES[stop.signum]} if stop.phase == "start-up" else set()
        if stop.phase != "start-up":
            problems.append("not saved")
        elif code == 75 and "before the first step" not in printed:
            problems.append("75, and not saved")
    if code not in expected:
        problems.append(f"exit code {code}")
    if saved and re.search(r"nothing was saved|starts over", printed):
        problems.append(f"says that nothing is saved, has step {saved}")
    if "Traceback" in printed or "resource_tracker" in printed:
        problems.append("prints a traceback")
    return problems


def print_table(stops: list[Stop]) -> None:
    """Print how many cases are as promised, in Markdown: by signal, receiver and layout; and by moment."""
    print(f"\n| signal, to | {' | '.join(LAYOUTS)} | s until the end, most |\n|{'---|' * (len(LAYOUTS) + 2)}")
    for signum, receiver in product(CODES, RECEIVERS):
        row = [stop for stop in stops if (stop.signum, stop.receiver) == (signum, receiver)]
        cells = []
        for layout in LAYOUTS:
            these = [stop for stop in row if stop.layout == layout]
            cells.append(f"{sum(not stop.problems for stop in these)} of {len(these)}")
        longest = max((stop.seconds for stop in row), default=0.0)
        print(f"| {signum.name[3:]}, {receiver} | {' | '.join(cells)} | {longest:.1f} |")
    phases = {phase: [stop for stop in stops if stop.phase == phase] for phase in run_phases.PHASES}
    counts = (f"{phase} {sum(not stop.problems for stop in these)} of {len(these)}" for phase, these in phases.items())
    print(f"\n{', '.join(counts)}")
    if jobs := [stop for stop in stops if stop.layout == "slurm"]:
        print(f"jobs of SLURM, TERM while they start: {sum(not stop.problems for stop in jobs)} of {len(jobs)}")
