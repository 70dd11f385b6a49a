"""Kill runs at any moment of their lives, go on with them, and compare them with one that was left alone.

    python scripts/bench_resume.py
    python scripts/bench_resume.py --kills 40 --devices 2 --seed 7
    python scripts/bench_resume.py --kills 16 --devices 1,2,torchrun,2xtorchrun

`torchrun` is one of two processes, `2xtorchrun` two of one process each, as on two machines.

Each trial starts a run and kills it by SIGKILL at a time drawn uniformly over the life of a whole run: its launching
process alone, or every process of it. Then it goes on by `resume=auto` or `mlscale runs resume last`, now and then
killed again, until it is done. Compared with the undisturbed run are the last and the best checkpoint with all that
they hold, every row of metrics.csv, and the final metrics. Printed are the moment and the phase of every kill, the
verdict, and what a restart takes to its first new step beside a cold start's first step. Ends with code 1 unless all
are identical.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from scripts import run_phases  # noqa: E402
from scripts.same_run import differences  # noqa: E402

MLSCALE = [sys.executable, "-m", "mlscale"]
SHORT = ["+recipe=resnet", "snapshot=false", "callbacks=[default]"]
VARIANTS = {
    "mlp": [*SHORT, "model=mlp", "trainer.max_epochs=40", "+trainer.val_check_interval=0.5",
            "callbacks.checkpoint.every_n_steps=4"],
    "resnet, accumulating": [*SHORT, "trainer.max_epochs=10", "trainer.accumulate_grad_batches=2",
                             "+trainer.limit_train_batches=16", "callbacks.checkpoint.every_n_steps=3",
                             "callbacks.checkpoint.keep=3"],
    "mlp, mixup, early stopping": [*SHORT, "model=mlp", "augment=mixup", "callbacks=[default,early_stopping]",
                                   "trainer.max_epochs=80", "callbacks.early_stopping.patience=40",
                                   "callbacks.checkpoint.save_top_k=1", "callbacks.checkpoint.every_n_minutes=0.005"],
}  # fmt: skip
AGAIN = 0.35  # the probability that an attempt after the first is killed, too
HUNG_SECONDS = 300


@dataclass
class Layout:
    """A variant on a number of processes: its undisturbed run, and what its trials took.

    Attributes:
        devices: processes that the command starts itself, as a number, or `torchrun` or `2xtorchrun`.
        life: seconds from the start of an undisturbed run to its end.
        cold, warm: seconds to the first step of a run from the beginning, and of one that went on.
        replayed: batches that were loaded again.
    """

    name: str
    words: list[str]
    devices: str
    reference: Path
    life: float
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    replayed: int = 0

    def note(self, trial: Path, begins: list[float]) -> None:
        """Keep the times to the first steps of a trial whose attempts began at `begins`."""
        for entry in run_phases.first_steps(trial):
            seconds = entry["time"] - max(begin for begin in begins if begin <= entry["time"])
            (self.cold if entry["went_on_from"] is None else self.warm).append(seconds)
            self.replayed += entry["replayed"]


def undisturbed(name: str, devices: str, folder: Path) -> Layout:
    """Train without interruption."""
    words = [*VARIANTS[name], *([f"trainer.devices={devices}"] if devices.isdigit() else [])]
    started = time.time()
    process = start(folder, [*words, "resume=auto"], devices)
    code = process.wait(HUNG_SECONDS)
    if code != 0:
        raise SystemExit(f"the undisturbed run ended with {code}:\n{(folder / 'output').read_text()}")
    label = devices if not devices.isdigit() else f"{devices} process{'es' if devices != '1' else ''}"
    layout = Layout(f"{name}, {label}", words, devices, run_of(folder), 0.0)
    layout.life = time.time() - started
    layout.note(folder, [started])
    return layout


def launcher(devices: str) -> list[str]:
    """The command that starts the ranks of a layout."""
    if devices.isdigit():
        return MLSCALE
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--master-addr=127.0.0.1", f"--master-port={port}"]
    if devices == "torchrun":
        return [*torchrun, "--nproc-per-node=2", "-m", "mlscale"]
    # One shell starts both, so that the session, and the process that is killed alone, are theirs.
    node = [*torchrun, "--nnodes=2", "--nproc-per-node=1"]
    first, second = (shlex.join([*node, f"--node-rank={rank}", "-m", "mlscale"]) for rank in (0, 1))
    return ["bash", "-c", f'{first} "$@" & a=$!; {second} "$@"; code=$?; wait $a && exit $code', "bash"]


def start(folder: Path, words: list[str], devices: str) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that all its processes can be killed at once."""
    run_phases.begin(folder)
    if words[0] != "runs":
        words = [*words, f"+callbacks.phases={{_target_:scripts.run_phases.Phases,folder:{folder}}}"]
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [*(launcher(devices) if words[0] != "runs" else MLSCALE), *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def run_of(folder: Path) -> Path:
    """The only run in a folder."""
    (path,) = folder.glob("runs/*/*/run.json")
    return path.parent


def kill(process: subprocess.Popen[bytes], whole: bool) -> None:
    """SIGKILL to every process of the run, or to the one that was started."""
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
    process.wait()


def lived(process: subprocess.Popen[bytes], folder: Path, seconds: float, start_up: float) -> int:
    """Let a process live for so many seconds. Those after the start-up of the undisturbed run count from this one's
    first step: on a machine that is busy now and then, all kills would fall into start-ups otherwise.

    Raises:
        subprocess.TimeoutExpired: it lives then; otherwise its exit code is returned.
    """
    if seconds <= start_up:
        return process.wait(seconds)
    end = time.monotonic() + HUNG_SECONDS
    while run_phases.current(folder) == run_phases.PHASES[0] and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    return process.wait(seconds - start_up)


def trial(layout: Layout, folder: Path, draw: random.Random) -> tuple[list[str], list[str]]:
    """Start, kill, go on, until the run is done. Returns the phases of the kills, and what differs."""
    phases: list[str] = []
    begins: list[float] = []
    while True:
        resume = [*layout.words, "resume=auto"]
        made = list(folder.glob("runs/*/*/run.json"))
        if made and layout.devices.isdigit() and draw.random() < 0.5:
            resume = ["runs", "resume", "last", "trust=true"]
        begins.append(time.time())
        process = start(folder, resume, layout.devices)
        disturb = not phases or draw.random() < AGAIN
        # What a launcher's death leaves of its ranks is not ours: there, all processes are killed, as with a machine.
        at, whole = draw.uniform(0, layout.life), draw.random() < 0.5 or not layout.devices.isdigit()
        try:
            code = lived(process, folder, at, layout.cold[0]) if disturb else process.wait(HUNG_SECONDS)
        except KeyboardInterrupt:
            kill(process, whole=True)
            raise
        except subprocess.TimeoutExpired:
            kill(process, whole or not disturb)
            if not disturb:
                return phases, [f"hung after {HUNG_SECONDS} s: {folder}"]
            phases.append(run_phases.current(folder))
            print(f"    {at:6.2f} s  {phases[-1]:<10}  {'all processes' if whole else 'the launcher'}", flush=True)
            if not any(folder.glob("runs/*/*/manifest.json")):
                continue
            code = 0  # killed when all was done
        if code != 0:
            return phases, [f"ended with code {code}: {folder}/output"]
        break
    layout.note(folder, begins)
    return phases, differences(layout.reference, run_of(folder))


def main() -> None:
    """Run the trials and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--devices", default="1,2", help="layouts, separated by commas: 1, 2, torchrun, 2xtorchrun")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", type=Path, help="a folder for the runs; those that are not identical stay anyhow")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    folder = args.keep or Path(tempfile.mkdtemp(prefix="bench-resume-"))
    folder.mkdir(parents=True, exist_ok=True)
    layouts = [
        undisturbed(name, devices, folder / f"reference-{index}-{devices}")
        for devices in args.devices.split(",")
        for index, name in enumerate(VARIANTS)
    ]
    print(
        f"seed {args.seed}; undisturbed: {', '.join(f'{each.name} {each.life:.1f} s' for each in layouts)}", flush=True
    )
    kills: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends it with the report so far
        run_trials(args.kills, layouts, folder, draw, kills, bad, keep=args.keep is not None)
    report(layouts, kills, bad)
    if bad:
        raise SystemExit(f"see {folder}")
    if args.keep is None:
        shutil.rmtree(folder)


def run_trials(
    count: int,
    layouts: list[Layout],
    folder: Path,
    draw: random.Random,
    kills: Counter[str],
    bad: Counter[str],
    *,
    keep: bool,
) -> None:
    """Trials of each layout in turn until `count` kills have been; they are added to `kills`, and to `bad` where the
    run came to something else than the undisturbed one."""
    number = 0
    while kills.total() < count:
        number += 1
        layout = layouts[number % len(layouts)]
        print(f"{number} {layout.name}", flush=True)
        place = folder / f"trial-{number}"
        phases, found = trial(layout, place, draw)
        kills.update(phases)
        bad.update(phases if found else [])
        print(f"    {'identical' if not found else 'DIFFERENT: ' + '; '.join(found[:4])}", flush=True)
        if not found and not keep:
            shutil.rmtree(place)


def report(layouts: list[Layout], kills: Counter[str], bad: Counter[str]) -> None:
    """The verdict by phase, and what a restart takes."""
    print("\n| phase | kills | identical |\n|---|---|---|")
    for phase in run_phases.PHASES:
        print(f"| {phase} | {kills[phase]} | {kills[phase] - bad[phase]} |")
    print(f"\n{kills.total() - bad.total()} of {kills.total()} identical")
    print("\n| | cold start's first step, s | restart's first new step, s | ratio | batches replayed |")
    print("|---|---|---|---|---|")
    for each in layouts:
        if not each.cold or not each.warm:
            continue
        cold = statistics.median(each.cold)
        ratio = statistics.median(each.warm) / cold
        print(f"| {each.name} | {spread(each.cold)} | {spread(each.warm)} | {ratio:.2f} | {each.replayed} |")


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
