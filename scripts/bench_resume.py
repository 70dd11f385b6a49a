"""Kill runs in every phase of their lives, resume them, and compare them with one that was left alone.

    python -m scripts.bench_resume
    python -m scripts.bench_resume --kills 40 --layouts 2 --seed 7
    python -m scripts.bench_resume --kills 16 --layouts 1,2,fsdp2,fsdp2-parts,torchrun,2xtorchrun,slurm
    python -m scripts.bench_resume --signals 2

`1` and `2` are processes that the command starts itself, `fsdp2` and `fsdp2-parts` two with `strategy=fsdp`, whose
checkpoints are one file or a folder with a part of each process. `torchrun` starts two, `2xtorchrun` are two of one
process each, as on two machines, and `slurm` is a job on two nodes of real daemons (`scripts/mini_slurm.sh`: root, and
the packages slurmctld, slurmd and slurm-client).

Each trial starts a run and kills it several times by SIGKILL, at steps and in phases that are drawn: by a clock in its
start-up, in a step, in a validation and at the exit; also before a drawn batch of a validation, and in a save and at
the exit before a drawn operation on a file, and so between two files of one save. All processes are killed, or one of
them: the launcher, an agent, a rank, the fork server; then the rest must end by itself. The run resumes by
`resume=auto`, `mlscale runs resume last` or its job's script. Compared with the undisturbed run are the last and the
best checkpoint with all that they hold, every row of metrics.csv, and the final metrics. Ends with code 1 unless all
are identical.

`--signals` sends TERM, INT, HUP and USR1 instead, to the command or to its process group, in each layout of one machine
and in phases that are drawn: the run must save, report that truly by message and exit code, leave no process, and
resume to the same. With `slurm` among the layouts, jobs get TERM while they start, too: each must be requeued.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from scripts import run_phases  # noqa: E402
from scripts.resume_layouts import (  # noqa: E402
    HELD_START,
    HUNG_SECONDS,
    RANKS,
    SHARDED,
    Attempt,
    JobAttempt,
    create_attempt,
    find_reference_layout,
    find_run,
    is_local,
    list_typed_words,
    signal_starting_job,
    start_cluster,
    wait_for_end,
)
from scripts.resume_tables import Kill, Timings, print_tables  # noqa: E402
from scripts.same_run import differences  # noqa: E402
from scripts.signal_matrix import CASES, JOB_RECEIVERS, Stop, print_table, stop_attempt  # noqa: E402

SHORT = ["snapshot=false", "trainer.accelerator=cpu", "+trainer.val_check_interval=0.5"]
VARIANTS = [
    ["+recipe=tabular", *SHORT, "callbacks=[default]", "trainer.max_epochs=3", "callbacks.checkpoint.every_n_steps=4"],
    ["+recipe=tabular", *SHORT, "callbacks=[default,early_stopping]", "trainer.max_epochs=6",
     "trainer.accumulate_grad_batches=2", "callbacks.checkpoint.every_n_steps=3", "callbacks.checkpoint.keep=3"],
    ["+recipe=resnet", "model=mlp", "augment=mixup", *SHORT, "callbacks=[default]", "trainer.max_epochs=2",
     "callbacks.checkpoint.save_top_k=1", "callbacks.checkpoint.every_n_minutes=0.003"],
]  # fmt: skip
STEPS = 40  # of each variant, about
# The most that are waited for: batches of a validation, operations on files in a save of up to three checkpoints and at
# an exit.
OPERATIONS = {"validation": 4, "checkpoint": 16, "exit": 40}
SPAN_SECONDS = {"step": 0.02, "validation": 0.03, "exit": 0.8}  # after the moment that is waited for


@dataclass
class Bench:
    """What the trials of a bench share.

    Attributes:
        folder: of all runs.
        draw: the source of all that is random.
        keep: keep the folders of trials that are identical.
        kills: so far.
        timings: of the layouts.
    """

    folder: Path
    draw: random.Random
    keep: bool = False
    kills: list[Kill] = field(default_factory=list)
    timings: dict[str, Timings] = field(default_factory=dict)
    _references: dict[tuple[int, str], Path] = field(default_factory=dict)
    _deck: list[str] = field(default_factory=list)

    def find_reference(self, variant: int, layout: str) -> Path:
        """Return the undisturbed run of a variant on as many processes of this machine; trained once."""
        layout = find_reference_layout(layout)
        if (variant, layout) not in self._references:
            folder = self.folder / f"reference-{variant}-{layout}"
            run_phases.begin_attempt(folder)
            attempt = Attempt(folder, build_words(variant, layout, folder), layout)
            begin = time.time()
            attempt.start()
            if not wait_for_end(attempt) or not attempt.has_succeeded:
                raise SystemExit(f"the undisturbed run failed:\n{(folder / 'output').read_text()}")
            self.get_timings(layout).note_steps(folder, [begin])
            self._references[variant, layout] = find_run(folder)
        return self._references[variant, layout]

    def get_timings(self, layout: str) -> Timings:
        """Return the timings of a layout."""
        return self.timings.setdefault(layout, Timings())

    def deal_phases(self, count: int) -> list[str]:
        """Return phases for a trial, the exit last; over all trials, each comes as often as the others."""
        while len(self._deck) < count:
            self._deck += self.draw.sample(run_phases.PHASES, len(run_phases.PHASES))
        dealt, self._deck = self._deck[:count], self._deck[count:]
        return sorted(dealt, key=lambda phase: phase == "exit")


def build_words(variant: int, layout: str, folder: Path) -> list[str]:
    """Return what is typed for a run."""
    phases = f"+callbacks.phases={{_target_:scripts.run_phases.Phases,folder:{folder}}}"
    return [*VARIANTS[variant], *list_typed_words(layout), phases]


@dataclass(frozen=True)
class Moment:
    """A moment at which an attempt is killed.

    Attributes:
        phase: one of `run_phases.PHASES`.
        step: optimizer steps that are done by then.
        seconds: from then on.
        order: for rank 0, which kills by itself then.
        whole: kill all processes.
    """

    phase: str
    step: int
    seconds: float
    order: run_phases.Order | None
    whole: bool


def draw_moments(bench: Bench, layout: str, count: int) -> Iterator[Moment]:
    """Yield the moments of a trial, in the order of a run's progress."""
    draw = bench.draw
    phases = bench.deal_phases(count)
    steps = sorted(draw.randrange(1, STEPS - 2) for _ in phases)
    for phase, step in zip(phases, steps, strict=True):
        whole = layout == "1" or draw.random() < 0.5
        # A clock seldom hits what is short. Where the launcher is another process than rank 0, it does what comes last.
        is_last = layout not in ("2", *SHARDED)
        share = {"checkpoint": 1.0, "validation": 0.6, "exit": 0.6 if is_last else 0.0}.get(phase, 0.0)
        by_rank = draw.random() < share
        operation = draw.randint(1, OPERATIONS.get(phase, 1))
        order = run_phases.Order(phase, step, operation, whole) if by_rank else None
        longest = bench.get_timings(layout).start_up_s if phase == "start-up" else SPAN_SECONDS.get(phase, 0.0)
        yield Moment(phase, 0 if phase in ("start-up", "exit") else step, draw.uniform(0, longest), order, whole)


def kill_at(attempt: Attempt, moment: Moment, draw: random.Random) -> str:
    """Wait for the moment and kill; return what was killed, an empty text where the attempt has ended before."""
    begin = time.monotonic()
    at = None  # the time of the kill, once the moment has come
    while time.monotonic() - begin < HUNG_SECONDS:
        if run_phases.has_struck(attempt.folder):
            return "all processes" if moment.whole else "rank 0"
        if attempt.is_over():
            return ""
        phase, step = run_phases.read_moment(attempt.folder)
        has_come = phase == moment.phase and step >= moment.step
        if at is None and moment.order is None and (has_come or moment.phase == "start-up"):
            at = time.monotonic() + moment.seconds
        if at is not None and time.monotonic() >= at:
            return attempt.kill(draw, whole=moment.whole)
        time.sleep(0.001)
    return ""


def run_trial(bench: Bench, layout: str, variant: int, count: int, folder: Path) -> list[str]:
    """Start a run, kill it `count` times, let it end; return what differs from the undisturbed one."""
    reference = bench.find_reference(variant, layout)
    timings, begins = bench.get_timings(layout), []
    attempt: Attempt | None = None
    for moment in [*draw_moments(bench, layout, count), None]:
        run_phases.begin_attempt(folder, moment.order if moment else None)
        attempt = create_attempt(folder, choose_words(bench, layout, variant, folder), layout, attempt)
        begins.append(time.time())
        attempt.start()
        killed = kill_at(attempt, moment, bench.draw) if moment else ""
        begin = time.monotonic()
        if not wait_for_end(attempt):
            attempt.end()
            return [f"hung after {HUNG_SECONDS:g} s: {folder}"]
        if killed:
            phase, step = run_phases.read_moment(folder)
            # A save in the background is written while the run is in the next step.
            phase = moment.phase if moment is not None and run_phases.has_struck(folder) else phase
            bench.kills.append(Kill(layout, phase, killed, time.monotonic() - begin))
            print(f"    {phase:<10} step {step:<3} {killed:<14} over after {bench.kills[-1].seconds:.1f} s", flush=True)
        if attempt.has_succeeded or is_done(folder):
            break  # before the moment came, or before the kill could end it
        if not killed:
            return [f"failed: {folder}/output"]
    timings.note_steps(folder, begins)
    return differences(reference, find_run(folder))


def is_done(folder: Path) -> bool:
    """Return True if the run of a folder is sealed as done."""
    return any(json.loads(path.read_text())["status"] == "done" for path in folder.glob("runs/*/*/manifest.json"))


def choose_words(bench: Bench, layout: str, variant: int, folder: Path) -> list[str]:
    """Return what is typed for the next attempt at a run."""
    is_begun = any(folder.glob("runs/*/*/run.json"))
    if is_begun and is_local(layout) and bench.draw.random() < 0.5:
        return ["runs", "resume", "last", "trust=true"]
    words = build_words(variant, layout, folder)
    return words if layout == "slurm" else [*words, "resume=auto"]


def run_trials(bench: Bench, layouts: list[str], kills: int, per_run: int, first_variant: int) -> None:
    """Do trials, the layouts and variants in turn, until so many kills have been."""
    number = 0
    while (left := kills - len(bench.kills)) > 0:
        layout, variant = layouts[number % len(layouts)], (first_variant + number) % len(VARIANTS)
        # Every layout gets a share, also where there are fewer kills than all of them could take.
        count = min(per_run, left, math.ceil(left / max(1, len(layouts) - number)))
        folder, first = bench.folder / f"trial-{number}", len(bench.kills)
        print(f"{number} {layout}, variant {variant}", flush=True)
        found = run_trial(bench, layout, variant, count, folder)
        for kill in bench.kills[first:]:
            kill.is_identical = not found
        if found and len(bench.kills) == first:
            raise SystemExit(f"a run that was not killed: {found}")
        print(f"    {'identical' if not found else 'DIFFERENT: ' + '; '.join(found[:4])}", flush=True)
        if not found and not bench.keep:
            shutil.rmtree(folder)
        number += 1


def run_signals(bench: Bench, rounds: int, first_variant: int) -> list[Stop]:
    """Stop and resume a run in each case of the matrix, as often as `rounds`."""
    stops = []
    for number, (signum, receiver, layout) in enumerate(CASES * rounds):
        variant, (phase,) = (first_variant + number) % len(VARIANTS), bench.deal_phases(1)
        reference, folder = bench.find_reference(variant, layout), bench.folder / f"stop-{number}"
        stop = Stop(signum, receiver, layout, phase)
        run_phases.begin_attempt(folder)
        words = [*build_words(variant, layout, folder), "resume=auto"]
        attempt = Attempt(folder, words, layout)
        attempt.start()
        longest = bench.get_timings(find_reference_layout(layout)).start_up_s
        delay = bench.draw.uniform(0, longest if phase == "start-up" else SPAN_SECONDS.get(phase, 0.02))
        stop_attempt(attempt, stop, 0 if phase == "exit" else bench.draw.randrange(1, STEPS - 2), delay)
        if not is_done(folder):
            again = Attempt(folder, choose_words(bench, layout, variant, folder), layout)
            again.start()
            if not wait_for_end(again) or not again.has_succeeded:
                stop.problems.append("not resumed")
        if is_done(folder):
            stop.problems += differences(reference, find_run(folder))[:4]
        stops.append(stop)
        print(
            f"{number} {signum.name} {receiver:<8} {layout:<12} {phase:<10} {stop.seconds:.1f} s",
            *stop.problems,
            flush=True,
        )
        if not stop.problems and not bench.keep:
            shutil.rmtree(folder)
    return stops


def run_job_starts(bench: Bench, rounds: int, variant: int) -> list[Stop]:
    """Stop jobs of SLURM while they start, all of their processes or their script; each is to be requeued."""
    stops = []
    for number, receivers in enumerate(JOB_RECEIVERS * rounds):
        reference, folder = bench.find_reference(variant, "slurm"), bench.folder / f"job-{number}"
        run_phases.begin_attempt(folder)
        stop = Stop(signal.SIGTERM, receivers, "slurm", "start-up")
        first = JobAttempt(folder, [*build_words(variant, "slurm", folder), HELD_START], "slurm")
        first.submit()
        signal_starting_job(folder, receivers)
        again = create_attempt(folder, first.words, "slurm", first)
        if not wait_for_end(first) or not wait_for_end(again) or not again.has_succeeded:
            stop.problems.append("not requeued")
            first.end()
        else:
            stop.problems += differences(reference, find_run(folder))[:4]
        stops.append(stop)
        print(f"{number} {stop.signum.name} {receivers:<8} slurm        start-up", *stop.problems, flush=True)
        if not stop.problems and not bench.keep:
            shutil.rmtree(folder)
    return stops


def main(argv: list[str] | None = None) -> int:
    """Run the trials and print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--layouts", default=",".join(RANKS), help=f"separated by commas: {', '.join(RANKS)}")
    parser.add_argument("--per-run", type=int, default=5, help="kills of one run, at most")
    parser.add_argument("--signals", type=int, default=0, help="stop signals instead of kills: rounds of the matrix")
    parser.add_argument("--seed", type=int, default=0, help="of the moments, and the first variant")
    parser.add_argument("--keep", type=Path, help="a folder for the runs; those that are not identical stay anyhow")
    args = parser.parse_args(argv)
    layouts = args.layouts.split(",")
    folder = args.keep or Path(tempfile.mkdtemp(prefix="bench-resume-"))
    bench = Bench(folder, random.Random(args.seed), args.keep is not None)
    begin = time.monotonic()
    cluster = start_cluster() if "slurm" in layouts else contextlib.nullcontext()
    if args.signals:
        stops = run_signals(bench, args.signals, args.seed)
        if "slurm" in layouts:
            with cluster:
                stops += run_job_starts(bench, args.signals, args.seed % len(VARIANTS))
        print(f"\nseed {args.seed}, {time.monotonic() - begin:.0f} s")
        print_table(stops)
        return int(any(stop.problems for stop in stops))
    # Ctrl-C ends it with the report so far.
    with cluster, contextlib.suppress(KeyboardInterrupt):
        run_trials(bench, layouts, args.kills, args.per_run, args.seed)
    print(f"\nseed {args.seed}, {time.monotonic() - begin:.0f} s")
    print_tables(bench.kills, bench.timings, layouts)
    if not all(kill.is_identical for kill in bench.kills):
        print(f"see {folder}")
        return 1
    if args.keep is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
