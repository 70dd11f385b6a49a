"""What one look at production costs: mlscale monitor against Evidently, on the same events.

    python -m scripts.bench_monitor

The work: 10,000 events of a model with three channels and ten classes, read from Parquet, against a reference of 10,000
samples: drift of eight columns (mean and deviation of each channel, confidence, predicted class), one in two shifted.
mlscale reads its own event store (ids, times, probabilities and all), looks, and keeps its state; Evidently reads a
flat file with the eight columns alone and runs its DataDriftPreset. Each contender has a process of its own for each
round; rounds are interleaved. Measured: CPU-seconds of the process for a first look with all imports, and for a further
one (other jobs on the machine change neither by much), and the largest resident memory. Both must find the same columns
drifted.

Evidently 0.7 needs pandas < 3.1 and 80 packages: the script makes an environment for it, in `--peer`, once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

EVENTS, LOOKS = 10_000, 5
PEER = ("evidently==0.7.23", "pandas<3.1", "pyarrow")
SHIFTED = {"input_mean_0", "input_std_1", "confidence", "classes"}
COLUMNS = [*(f"input_mean_{c}" for c in range(3)), *(f"input_std_{c}" for c in range(3)), "confidence", "classes"]


def main() -> None:
    """Write the data, run both in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, default=Path(tempfile.gettempdir()) / "mlscale-bench-evidently")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]))
        return
    pythons = {"mlscale": sys.executable, "evidently": str(peer(args.peer))}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for _ in range(args.rounds):
            for name, python in pythons.items():
                command = [python, __file__, "--child", name, folder]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found[name].append(json.loads(said.splitlines()[-1]))
    for name, runs in found.items():
        for run in runs:
            assert set(run["drifted"]) == SHIFTED, f"{name} found {run['drifted']}"
    show(found)


def peer(folder: Path) -> Path:
    """The peer's Python, in an environment that is made where it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEER], check=True)
    return python


def write(folder: Path) -> None:
    """The same 10,000 events as an event store and as a flat file; the reference as a profile and as a flat file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mlscale.events.store import EventStore
    from tests.event_writing import add_classified

    generator = np.random.default_rng(0)

    def draw(shift: float) -> dict[str, Any]:
        means = 100 + 20 * (generator.normal(size=(EVENTS, 3)) + np.array([shift, 0, 0]))
        stds = 50 + 5 * (generator.normal(size=(EVENTS, 3)) + np.array([0, shift, 0]))
        weights = np.linspace(1 + 2 * shift, 1, 10)
        return {
            "means": means.astype(np.float32),
            "stds": stds.astype(np.float32),
            "confidence": generator.beta(9 - 4 * shift, 1, EVENTS).astype(np.float32),
            "classes": generator.choice(10, EVENTS, p=weights / weights.sum()).astype(np.int32),
        }

    reference, current = draw(0.0), draw(1.0)
    write_profile(folder / "profile", reference)
    for name, drawn in (("reference", reference), ("current", current)):
        values = [*drawn["means"].T, *drawn["stds"].T, drawn["confidence"], drawn["classes"].astype(str)]
        pq.write_table(pa.table(dict(zip(COLUMNS, values, strict=True))), folder / f"{name}.parquet")
    store = EventStore(folder / "events")
    writer = store.open_writer("m")
    # One pixel pair each, of which mean and deviation are what was drawn.
    raw = np.stack([current["means"] - current["stds"], current["means"] + current["stds"]], -1)
    probabilities = np.repeat((1 - current["confidence"])[:, None] / 9, 10, 1)
    probabilities[np.arange(EVENTS), current["classes"]] = current["confidence"]
    for start in range(0, EVENTS, 100):
        rows = slice(start, start + 100)
        add_classified(
            writer,
            [f"{index:032x}" for index in range(start, start + 100)],
            version="m:v1",
            raw=raw[rows],
            labels=current["classes"][rows].astype(str).tolist(),
            probabilities=probabilities[rows].astype(np.float32),
            latency_ms=2.0,
        )
    writer.close()


def write_profile(folder: Path, drawn: dict[str, Any]) -> None:
    """The reference profile of what was drawn."""
    import numpy as np

    from mlscale.reference.column_sketch import ColumnSketch, ScoreReference, build_category_sketch, build_number_sketch
    from mlscale.reference.stored_reference import StoredReference

    sketches: list[ColumnSketch] = [
        build_number_sketch(f"input.{name}_{channel}", "inputs", drawn[f"{name}s"][:, channel].astype(np.float64))
        for name in ("mean", "std")
        for channel in range(3)
    ]
    sketches.append(build_number_sketch("output.confidence", "outputs", drawn["confidence"].astype(np.float64)))
    sketches.append(build_category_sketch("output.label", "outputs", drawn["classes"].astype(str).tolist()))
    score = ScoreReference("accuracy", True, "", True, True, 0.99, EVENTS, np.zeros(0))
    folder.mkdir()
    StoredReference({"samples": EVENTS}, tuple(sketches), score).save_profile(folder)


def child(name: str, folder: Path) -> None:
    """One contender in this process: a first look, further ones, and what they took; as JSON."""
    look = {"mlscale": ours, "evidently": theirs}[name](folder)
    drifted = look()
    first = time.process_time()
    seconds = []
    for _ in range(LOOKS):
        start = time.process_time()
        look()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps({"drifted": drifted, "first_cpu_s": first, "look_s": statistics.median(seconds), "peak_mib": peak})
    )


def ours(folder: Path) -> Callable[[], list[str]]:
    """A look of mlscale, from the disk to its state on the disk."""
    from datetime import UTC, datetime

    from mlscale.events.store import EventStore
    from mlscale.monitor.alert_rule import AlertPolicy
    from mlscale.monitor.alerts import AlertDispatcher
    from mlscale.monitor.baseline import Baseline
    from mlscale.monitor.event_columns import round_sketch
    from mlscale.monitor.event_window import WindowSpan, read_event_window
    from mlscale.monitor.window_check import RULES, MonitorLimits, check_rules
    from mlscale.reference.stored_reference import StoredReference
    from mlscale.task_types.event_forms import AnswerNames
    from mlscale.task_types.registry import get_task_type

    names = AnswerNames(tuple("0123456789"))

    def one() -> list[str]:
        now = datetime.now(UTC)
        reference = StoredReference.load_profile(folder / "profile")
        sketches = tuple(map(round_sketch, reference.columns))
        baseline = Baseline("m", "m:v1", get_task_type("classification"), names, sketches, reference.score, True)
        window = read_event_window(EventStore(folder / "events"), "m", "m:v1", WindowSpan(), now, baseline.scorer)
        assert window.answered == EVENTS
        seen = check_rules(baseline, window, MonitorLimits())
        AlertDispatcher(folder / "state.json", "m", tuple(RULES), AlertPolicy()).process_check(seen, "m", now)
        found = dict.fromkeys(
            column.name for column in seen.columns if column.is_significant and column.distance >= 0.1
        )
        short = {"output.confidence": "confidence", "output.label": "classes"}
        return [short.get(name, name.replace(".", "_")) for name in found]

    return one


def theirs(folder: Path) -> Callable[[], list[str]]:
    """A look of Evidently: the flat files, its preset, and its result as a dictionary."""
    os.environ["DO_NOT_TRACK"] = "1"
    pandas, evidently, presets = map(import_module, ("pandas", "evidently", "evidently.presets"))

    def one() -> list[str]:
        current, reference = (pandas.read_parquet(folder / f"{name}.parquet") for name in ("current", "reference"))
        assert len(current) == EVENTS
        result = evidently.Report([presets.DataDriftPreset()]).run(current, reference).dict()
        # One entry a column; what it calls drift is its own method for so many rows, a distance over 0.1.
        scores = {
            entry["config"]["column"]: float(entry["value"])
            for entry in result["metrics"]
            if "column" in entry.get("config", {})
        }
        return [name for name in COLUMNS if scores[name] >= 0.1]

    return one


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    """The table, in the form of docs/benchmarks.md."""
    print("| | first look with imports, CPU s | a further look, CPU ms | largest memory, MiB |\n|---|---|---|---|")
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("first_cpu_s", "look_s", "peak_mib")}
        for name, runs in found.items()
    }
    for name, of in middle.items():
        print(f"| {name} | {of['first_cpu_s']:.2f} | {1000 * of['look_s']:.0f} | {of['peak_mib']:.0f} |")
    ratio = {key: middle["evidently"][key] / middle["mlscale"][key] for key in middle["mlscale"]}
    print(f"| ratio | {ratio['first_cpu_s']:.1f} | {ratio['look_s']:.0f} | {ratio['peak_mib']:.1f} |")
    for name, runs in found.items():
        spread = [f"{1000 * run['look_s']:.0f}" for run in runs]
        print(f"\n{name}: a further look in each round, CPU ms: {', '.join(spread)}")


if __name__ == "__main__":
    main()
