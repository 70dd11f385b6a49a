"""Kill retraining cycles at random moments by SIGKILL, run the command again, and check what they have left.

    python -m scripts.bench_retrain_kills --kills 25 --seed 7

Each trial starts `mlscale retrain` of a small table model, with a server that follows its champion, and kills the
process and its children in one of the phases of a cycle: start, window, training, export, gate, promotion, swap (from
the champion's change to the end of the process). The phases take turns; the moment is drawn uniformly over the time
that the phase took in a cycle that was left alone. Then the command is typed again, without a kill. In every fifth
trial the labels are drawn by chance: its challenger must never become champion.

Checked in each trial: one training was completed, and none was begun again after one was complete; the challenger is
bitwise that of the cycle that was left alone; the journal has one decision, and interruptions alone besides it; the
champion is the challenger if it passed the gate, else the first version; its files are as published; the server has
answered each request, by a version that was champion, and serves the champion at the end.
Ends with code 1 unless all trials pass.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.retrain_kill_place import PHASES, CycleTraces, create_places, restore_place
from tests.e2e.retrain_place import RetrainPlace
from tests.serving import ROOT, Server, serving

POISONED_EVERY = 5
_POLL_S, _LIMIT_S = 0.0005, 600
_SAMPLE = {"age": 0.7, "city": "Rome"}
# Neither times, for which a busy machine would reject a challenger by chance, nor doubts of labels are tested here.
_CYCLE = ("passes=15", "gate.max_latency_ratio=5", "gate.min_kappa=null")


@dataclass
class Trial:
    """A cycle that was killed, and the one that followed.

    Attributes:
        phase: that the kill was drawn for.
        hit: the phase that the cycle was in.
        faults: in words; none where all is well.
    """

    phase: str
    hit: str = ""
    faults: list[str] = field(default_factory=list)


@dataclass
class UntouchedCycle:
    """A cycle that was left alone.

    Attributes:
        seconds: that each phase took.
        challenger: the digest of its challenger's model.
    """

    seconds: dict[str, float]
    challenger: str


def main() -> None:
    """Run all trials, and print a line for each and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        create_places(Path(folder), args.seed)
        lasted = {kind: time_phases(Path(folder), kind) for kind in ("good", "poisoned")}
        for kind, cycle in lasted.items():
            print(f"{kind}, not killed, s: " + ", ".join(f"{name} {s:.3f}" for name, s in cycle.seconds.items()))
        trials = []
        for number in range(args.kills):
            kind = "poisoned" if number % POISONED_EVERY == POISONED_EVERY - 1 else "good"
            trials.append(run_trial(Path(folder), kind, lasted[kind], chance, number))
    print_sums(trials)
    sys.exit(any(trial.faults for trial in trials))


def time_phases(folder: Path, kind: str) -> UntouchedCycle:
    """Run a cycle that is left alone."""
    place = restore_place(folder, kind)
    traces = CycleTraces.start_watching(place)
    begun: dict[str, float] = {}
    with start_cycle(place) as process:
        while process.poll() is None:
            begun.setdefault(traces.find_phase(), time.monotonic())
            time.sleep(_POLL_S)
        end = time.monotonic()
    if faults := list_faults(traces, kind):
        raise SystemExit(f"a cycle that was not killed: {'; '.join(faults)}\n{(place.folder / 'log').read_text()}")
    times = [*begun.values(), end]
    seconds = {name: after - before for name, before, after in zip(begun, times, times[1:], strict=False)}
    return UntouchedCycle(seconds, read_challenger_digest(place))


def read_challenger_digest(place: RetrainPlace) -> str:
    """Return the SHA-256 of the second version's model; '' where it was not published."""
    if len(place.registry.list_versions("m")) < 2:
        return ""
    return hashlib.sha256((place.registry.resolve_version("m:v2").payload / "model.onnx").read_bytes()).hexdigest()


def start_cycle(place: RetrainPlace) -> subprocess.Popen[bytes]:
    """Start `mlscale retrain` in a session of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mlscale", "retrain", *place.words, *_CYCLE]
    with (place.folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=place.folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def run_trial(folder: Path, kind: str, lasted: UntouchedCycle, chance: random.Random, number: int) -> Trial:
    """Kill a cycle, run another one to its end, and check both."""
    possible = [phase for phase in PHASES if phase in lasted.seconds]
    # Poisoned trials have fewer phases, and take their own turns.
    turn = number // POISONED_EVERY if kind == "poisoned" else number - number // POISONED_EVERY
    trial = Trial(possible[turn % len(possible)])
    while not trial.hit:
        delay = chance.uniform(0, lasted.seconds[trial.phase])
        place = restore_place(folder, kind)
        with serving(place.folder, "m@champion", *build_server_words(place)) as server, ServedVersions(server) as seen:
            traces = CycleTraces.start_watching(place)
            with start_cycle(place) as process:
                # A cycle that ended before its kill does not count as a trial.
                trial.hit = kill_in_phase(process, traces, trial.phase, delay)
            if not trial.hit:
                continue
            trial.faults += list_faults(traces, kind, is_killed=True)
            done = len([run for run in traces.list_trainings() if run.status == "done"])
            begun = len(traces.list_trainings())
            with start_cycle(place) as process:
                process.wait(_LIMIT_S)
            trial.faults += list_faults(traces, kind)
            if done and len(traces.list_trainings()) > begun:
                trial.faults.append("trained again after a complete training")
            # Equal windows train equal challengers, on one thread to the last bit.
            if read_challenger_digest(place) != lasted.challenger:
                trial.faults.append("another challenger than that of the cycle that was left alone")
            trial.faults += seen.list_faults(traces.read_champion())
    outcome = "ok" if not trial.faults else "; ".join(trial.faults)
    print(f"{number + 1:3} {kind:8} {trial.phase:9} +{delay:.3f} s, in {trial.hit:9} {outcome}", flush=True)
    return trial


def build_server_words(place: RetrainPlace) -> list[str]:
    """Return the words of a server that follows the champion, and keeps no events."""
    return ["events=null", "poll_s=0.05", f"registry.root={place.folder}/registry", f"runs_dir={place.folder}/runs"]


def kill_in_phase(process: subprocess.Popen[bytes], traces: CycleTraces, phase: str, delay: float) -> str:
    """Kill the process `delay` seconds after a phase has begun; return the phase that was hit, '' if it ended before.

    Raises:
        TimeoutError: the phase did not begin.
    """
    wanted = PHASES[PHASES.index(phase) :]
    wait_until(lambda: process.poll() is not None or traces.find_phase() in wanted, _POLL_S)
    time.sleep(delay)
    if process.poll() is not None:
        return ""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return traces.find_phase()


def wait_until(is_met: Callable[[], bool], pause: float) -> None:
    """Wait until a condition is met.

    Raises:
        TimeoutError: it was not in ten minutes.
    """
    end = time.monotonic() + _LIMIT_S
    while not is_met():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(pause)


def list_faults(traces: CycleTraces, kind: str, *, is_killed: bool = False) -> list[str]:
    """Return what is wrong on the disk after a cycle.

    Args:
        traces: of the cycle, and of that before it.
        kind: good or poisoned.
        is_killed: it was killed, and no other one has followed.
    """
    place, faults = traces.place, []
    champion = traces.read_champion()
    turns = [turn for turn in traces.read_records() if turn["challenger"] == f"m:v{champion}"]
    if champion != 1 and (kind == "poisoned" or not any(has_passed(turn["figures"]) for turn in turns)):
        faults.append(f"v{champion} is champion without a proof")
    complete = [run for run in traces.list_trainings() if run.status == "done"]
    if len(complete) > 1:
        faults.append(f"{len(complete)} complete trainings")
    # It raises an error for files that are not as they were published.
    place.registry.fetch("m@champion")
    if is_killed:
        return faults
    ended = [turn for turn in place.journal if turn["decision"] != "interrupted"]
    # The gate may reject a challenger of right labels, too, where it is not surely better.
    wanted = ["promoted" if champion != 1 else "rejected"]
    if [turn["decision"] for turn in ended] != wanted:
        faults.append(f"decisions {[(turn['decision'], turn['reason']) for turn in ended]}, v{champion} is champion")
    if champion == 1 and any(has_passed(turn["figures"]) for turn in ended):
        faults.append("the challenger passed, and is not champion")
    if len(complete) != 1:
        faults.append(f"{len(complete)} complete trainings")
    if (versions := len(place.registry.list_versions("m"))) != 2:
        faults.append(f"{versions} versions")
    journal = {turn["id"] for turn in place.journal}
    if lost := {turn["id"] for turn in traces.read_records()} - journal:
        faults.append(f"cycles without a line: {', '.join(sorted(lost))}")
    return faults


def has_passed(figures: dict[str, float]) -> bool:
    """Return True if a comparison has shown that a challenger is better, and not worse on the original data."""
    return figures.get("window_p_better", 1) <= 0.05 and figures.get("original_difference_low", -1) >= -0.03


class ServedVersions:
    """Requests that a server gets all the time, and the versions that answered."""

    def __init__(self, server: Server) -> None:
        self._server, self._stop = server, threading.Event()
        self._answers: list[tuple[int, str]] = []
        self._thread = threading.Thread(target=self._send_requests)

    def __enter__(self) -> ServedVersions:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def list_faults(self, champion: int) -> list[str]:
        """Return what is wrong with the answers, once the champion is served; `champion` is its number."""
        wanted = f"m:v{champion}"
        try:
            wait_until(lambda: bool(self._answers) and self._answers[-1][1] == wanted, 0.02)
        except TimeoutError:
            return [f"{self._answers[-1:]} is served in place of {wanted}"]
        versions = list(dict.fromkeys(version for _, version in self._answers))
        statuses = {status for status, _ in self._answers}
        wrong = [] if statuses == {200} else [f"statuses {sorted(statuses)}"]
        return wrong + ([] if versions == list(dict.fromkeys(["m:v1", wanted])) else [f"served {versions}"])

    def _send_requests(self) -> None:
        while not self._stop.wait(0.02):
            reply = self._server.ask("/predict", _SAMPLE)
            self._answers.append((reply.status, str(reply.json.get("model_version"))))


def print_sums(trials: Sequence[Trial]) -> None:
    """Print the kills by the phase that they hit."""
    print("| phase | kills | passed |\n|---|---|---|")
    for phase in PHASES:
        hit = [trial for trial in trials if trial.hit == phase]
        print(f"| {phase} | {len(hit)} | {sum(not trial.faults for trial in hit)} |")
    print(f"| all | {len(trials)} | {sum(not trial.faults for trial in trials)} of {len(trials)} |")


if __name__ == "__main__":
    main()
