"""Notifications, cost and documents of drift detection: rows of docs/benchmarks.md, and Evidently on the same columns.

    python -m scripts.bench_drift --seed 1 --looks 200
    python -m scripts.bench_drift --only documents --looks 20
    python -m scripts.bench_drift --seed 1 --only cost --peer /path/to/a/venv/with/evidently/bin/python

Each look compares 20 columns with a reference of 10,000 samples, at the defaults of `mlscale monitor`; `bench_streams`
has the false alarms and the power of kinds of streams. Costs are CPU-seconds, in rounds of all contenders in turn; the
files are read before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS, REFERENCE, ROUNDS = 20, 10_000, 5
NAMES = [f"input.c{number}" for number in range(COLUMNS)]
Table = NDArray[np.float64]


def main() -> None:
    """Print the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--looks", type=int, default=200)
    parser.add_argument("--peer", type=Path, help="the Python of an environment with evidently")
    parser.add_argument("--only", choices=["ticks", "cost", "documents"])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure_evidently(args.child)
        return
    random = np.random.default_rng(args.seed)
    rows: dict[str, Callable[[], None]] = {
        "ticks": lambda: print_tick_rows(random),
        "cost": lambda: print_cost_rows(random, args.peer),
        "documents": lambda: print_documents(args.seed, args.looks),
    }
    for name, print_rows in rows.items():
        if args.only in (None, name):
            print_rows()


def print_documents(seed: int, looks: int) -> None:
    """Print the rows of documents; run as a module, as it trains models by the code of the tests."""
    from scripts.bench_document_drift import print_document_rows

    print_document_rows(seed, looks)


def draw_series(random: np.random.Generator, n: int, rho: float = 0.0, columns: int = COLUMNS) -> Table:
    """Return n events of independent columns, autocorrelated by `rho`, with a standard normal distribution."""
    from scipy.signal import lfilter

    noise = random.normal(size=(n, columns))
    noise[1:] *= np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1], [1, -rho], noise, axis=0)) if rho else noise


def build_sketches(table: Table) -> list[Any]:
    """Return the sketches of a reference."""
    from mlscale.reference.column_sketch import build_number_sketch

    return [build_number_sketch(name, "inputs", table[:, column]) for column, name in enumerate(NAMES)]


def compare_table(sketches: list[Any], table: Table) -> tuple[Any, ...]:
    """Return the results of one look."""
    from mlscale.monitor.drift import DriftLimits, compare_columns

    return compare_columns(sketches, split_columns(table), np.zeros(0, "datetime64[us]"), DriftLimits())


def split_columns(table: Table) -> dict[str, Table]:
    """Return the columns by name."""
    return {f"input.c{number}": values for number, values in enumerate(np.ascontiguousarray(table.T))}


def is_detected(results: tuple[Any, ...]) -> bool:
    """Return True if the look reports drift."""
    return any(result.is_detected for result in results)


def print_share(name: str, found: list[bool]) -> None:
    """Print a share with its Wilson interval."""
    from mlscale.stats.intervals import compute_wilson_interval

    share = compute_wilson_interval(sum(found), len(found), 0.95)
    ends = f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"
    print(f"| {name} | {100 * share.value:.1f} % {ends} of {len(found)} |", flush=True)


def print_tick_rows(random: np.random.Generator) -> None:
    """Print the notifications of 600 clean looks, each at the latest 1,000 events, of which 100 are new."""
    from mlscale.monitor.alert_rule import AlertPolicy
    from mlscale.monitor.alerts import AlertDispatcher
    from mlscale.monitor.window_check import MonitorLimits, WindowCheck, check_drift

    n, step, begin = 1000, 100, datetime(2026, 1, 5, tzinfo=UTC)
    sketches = build_sketches(draw_series(random, REFERENCE))
    for rho in (0.0, 0.8):
        sent, detected, series = 0, [], draw_series(random, n + 600 * step, rho)
        times = np.datetime64("2026-01-05", "us") + np.arange(len(series)).astype("timedelta64[s]")
        with tempfile.TemporaryDirectory() as folder:
            desk = AlertDispatcher(Path(folder) / "state.json", "m", ("drift",), AlertPolicy())
            for tick in range(600):
                rows = slice(tick * step, tick * step + n)
                results = compare_table(sketches, series[rows])
                detected.append(is_detected(results))
                drift = check_drift(results, n, MonitorLimits())
                check = WindowCheck("m:v1", (drift,), results, n, times[rows])
                sent += len(desk.process_check(check, "m", begin + timedelta(minutes=tick)).changes)
        print(f"| 600 clean looks, AR(1) {rho:g}, 90 % overlap | {sent} notifications |")
        print_share(f"600 clean looks, AR(1) {rho:g}, 90 % overlap", detected)


def print_cost_rows(random: np.random.Generator, peer: Path | None) -> None:
    """Print the CPU time of a look at 20 columns and 10,000 events; of Evidently, too, where it is installed."""
    reference, table = draw_series(random, REFERENCE), draw_series(random, 10_000)
    table[:, ::2] += 0.5
    sketches, columns = build_sketches(reference), split_columns(table)
    times = np.zeros(0, "datetime64[us]")
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "columns.npz", reference=reference, current=table)
        for _ in range(ROUNDS):
            ours.append(measure_look(sketches, columns, times))
            if peer:
                command = [str(peer), __file__, "--child", folder]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                theirs.append(json.loads(said.splitlines()[-1]))
    print_times("a look at 20 columns × 10,000 events, half of them shifted, CPU ms: mlscale", ours)
    if theirs:
        print_times("the same: Evidently", theirs)
        print(f"| ratio | {statistics.median(theirs) / statistics.median(ours):.0f} |")
    start = time.process_time()
    build_sketches(reference)
    print(f"| sketches of the reference, once, CPU ms | {1000 * (time.process_time() - start):.1f} |")


def measure_look(sketches: list[Any], columns: dict[str, Table], times: Any) -> float:
    """Return the CPU time of a look, the median of ten."""
    from mlscale.monitor.drift import DriftLimits, compare_columns

    taken = []
    for _ in range(11):
        start = time.process_time()
        results = compare_columns(sketches, columns, times, DriftLimits())
        taken.append(time.process_time() - start)
    assert {result.name for result in results if result.is_detected} == set(NAMES[::2])
    return statistics.median(taken[1:])


def measure_evidently(folder: Path) -> None:
    """Print the CPU time of a look of Evidently, the second one in its process."""
    from importlib import import_module

    pandas, evidently, presets = map(import_module, ("pandas", "evidently", "evidently.presets"))
    with np.load(folder / "columns.npz") as stored:
        reference, current = (pandas.DataFrame(stored[name], columns=NAMES) for name in ("reference", "current"))
    for _ in range(2):
        start = time.process_time()
        evidently.Report([presets.DataDriftPreset()]).run(current, reference).dict()
        taken = time.process_time() - start
    print(json.dumps(taken))


def print_times(name: str, seconds: list[float]) -> None:
    """Print the median of rounds, and all of them."""
    rounds = ", ".join(f"{1000 * each:.1f}" for each in seconds)
    print(f"| {name} | {1000 * statistics.median(seconds):.1f} ({rounds}) |", flush=True)


if __name__ == "__main__":
    main()
