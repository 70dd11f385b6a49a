"""Disturb runs on a real SLURM cluster at any moment, let them resume, and compare them with an undisturbed one.

    python scripts/bench_slurm.py --kills 16 --nodes 2
    python scripts/bench_slurm.py --kills 100 --nodes 2 --seed 7

It starts the cluster of `scripts/mini_slurm.sh` (root, and the packages slurmctld, slurmd and slurm-client). Each trial
submits a run by `launch=slurm`, and disturbs it at a time drawn uniformly over the life of a whole run: by SIGKILL to
one of its processes or to all of them, by the signal that announces the time limit, or by a requeue that the
administrator orders. The job then resumes by itself, now and then disturbed again, until it is done. Compared with a
run of as many processes on this machine, never disturbed, are checkpoints, metrics.csv and the final metrics. Ends
with code 1 unless all are identical.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from mlscale.runs.job_record import read_job_record  # noqa: E402
from scripts import run_phases  # noqa: E402
from scripts.same_run import differences  # noqa: E402

WORDS = [
    "+recipe=resnet", "model=mlp", "snapshot=false", "callbacks=[default]", "trainer.max_epochs=12",
    "+trainer.val_check_interval=0.5", "callbacks.checkpoint.every_n_steps=4", "trainer.accelerator=cpu",
]  # fmt: skip
SUBMITTED = ["launch=slurm", "launch.grace_s=30", "launch.max_failures=20"]
KINDS = ("a process", "all processes", "time limit", "requeue")
AGAIN = 0.35  # the probability that a start after the first is disturbed, too
HUNG_SECONDS = 600.0


def call_cluster(action: str) -> None:
    """Start or end the cluster."""
    subprocess.run(["bash", str(ROOT / "scripts/mini_slurm.sh"), action], check=True)


def run_mlscale(folder: Path, *words: str) -> None:
    """Run a command in a folder; its callback reports phases there."""
    run_phases.begin(folder)
    phases = f"+callbacks.phases={{_target_:scripts.run_phases.Phases,folder:{folder}}}"
    with (folder / "output").open("ab") as output:
        subprocess.run(
            [sys.executable, "-m", "mlscale", *words, phases],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
            check=True,
        )


def find_run(folder: Path) -> Path:
    """Return the only run of a folder."""
    (path,) = folder.glob("runs/*/*/run.json")
    return path.parent


def list_rank_processes(run: Path) -> list[int]:
    """Return the processes of a run's ranks."""
    processes = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            variables = path.joinpath("environ").read_bytes().split(b"\0")
            words = path.joinpath("cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        is_rank = words[1:4] == [b"-m", b"mlscale", b"train"]
        if is_rank and f"MLSCALE_JOB_RUN={run}".encode() in variables:
            processes.append(int(path.name))
    return processes


def is_queued(job: str) -> bool:
    """Return True while a job waits or runs."""
    done = subprocess.run(["squeue", "-h", "-o", "%i"], check=True, capture_output=True, text=True)
    return job in done.stdout.split()


def disturb_run(run: Path, job: str, draw: random.Random) -> str:
    """Disturb a run that trains; return how. An empty text where its processes have ended by then."""
    processes = list_rank_processes(run)
    if not processes:
        return ""
    kind = draw.choice(KINDS)
    if kind == "time limit":
        subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=False, capture_output=True)
    elif kind == "requeue":
        subprocess.run(["scontrol", "requeue", job], check=False, capture_output=True)
    else:
        for process in processes if kind == "all processes" else [draw.choice(processes)]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
    return kind


def run_trial(folder: Path, nodes: int, life: float, draw: random.Random) -> tuple[list[tuple[str, str]], list[str]]:
    """Submit, disturb, wait until the run is done; return the phases and kinds of disturbances, and what differs."""
    run_mlscale(folder, *WORDS, *SUBMITTED, f"launch.nodes={nodes}")
    run = find_run(folder)
    record = read_job_record(run)
    assert record is not None
    disturbed: list[tuple[str, str]] = []
    at, wants = draw.uniform(0, life), True
    starts, began, end = 0, 0.0, time.monotonic() + HUNG_SECONDS
    while is_queued(record.id):
        if time.monotonic() > end:
            return disturbed, [f"hung after {HUNG_SECONDS:.0f} s: {folder}"]
        now = read_job_record(run)
        if now is not None and len(now.starts) > starts and list_rank_processes(run):
            starts, began = len(now.starts), time.monotonic()
            wants = not disturbed or draw.random() < AGAIN
            at = draw.uniform(0, life)
        if wants and began and time.monotonic() - began > at:
            phase, kind = run_phases.current(folder), disturb_run(run, record.id, draw)
            wants = False
            if kind:
                disturbed.append((phase, kind))
                print(f"    {at:6.2f} s  {phase:<10}  {kind}", flush=True)
        time.sleep(0.02)
    return disturbed, differences(find_run(folder.parent / "reference"), run)


def main() -> None:
    """Run the trials and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=16)
    parser.add_argument("--nodes", type=int, default=2, help="one process on each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and kinds")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    folder = Path(tempfile.mkdtemp(prefix="bench-slurm-"))
    os.environ["BASE"] = str(folder / "cluster")
    os.environ["SLURM_CONF"] = str(folder / "cluster/etc/slurm.conf")
    call_cluster("up")
    counts: Counter[tuple[str, str]] = Counter()
    bad: Counter[tuple[str, str]] = Counter()
    try:
        began = time.monotonic()
        run_mlscale(folder / "reference", *WORDS, f"trainer.devices={args.nodes}")
        life = time.monotonic() - began
        print(f"seed {args.seed}, {args.nodes} nodes; undisturbed {life:.1f} s", flush=True)
        number = 0
        while counts.total() < args.kills:
            number += 1
            trial = folder / f"trial-{number}"
            disturbed, found = run_trial(trial, args.nodes, life, draw)
            counts.update(disturbed)
            bad.update(disturbed if found else [])
            verdict = "identical" if not found else "DIFFERENT: " + "; ".join(found[:4])
            print(f"{number}   {verdict}", flush=True)
            if not found:
                shutil.rmtree(trial)
    finally:
        call_cluster("down")
        report(counts, bad)
    if bad:
        raise SystemExit(f"see {folder}")
    shutil.rmtree(folder)


def report(counts: Counter[tuple[str, str]], bad: Counter[tuple[str, str]]) -> None:
    """Print the verdict by phase and kind."""
    for index, title in enumerate(("phase", "disturbed by")):
        print(f"\n| {title} | times | identical |\n|---|---|---|")
        for name in run_phases.PHASES if index == 0 else KINDS:
            times = sum(count for key, count in counts.items() if key[index] == name)
            wrong = sum(count for key, count in bad.items() if key[index] == name)
            print(f"| {name} | {times} | {times - wrong} |")
    print(f"\n{counts.total() - bad.total()} of {counts.total()} identical")


if __name__ == "__main__":
    main()
