"""False alarms and power of drift detection over kinds of streams and changes, and its peers on the same windows.

    python -m scripts.bench_streams --seed 1202 --looks 100
    python -m scripts.bench_streams --only 'AR|users' --looks 300
    python -m scripts.bench_streams --peer evidently=/path/to/python --peer alibi=/path/to/python --peer-looks 10

A look compares a window with a reference of its own, both drawn by the seed, by the rules of `mlscale monitor` with its
defaults (a false-discovery rate of 1 %, alerts from a distance of .1): 20 columns, a reference of 10,000 independent
samples and windows of 1,000 unless the row has others. *Detected* is what a look reports, of a change in the changed
column; an alert is what it would notify of; undecided is drift that a cycle may explain, with nothing detected besides.
Times of events are unknown (so no cycle is considered) but where the row names weeks. A quarter of the looks have
10,000 events of a change.

A peer runs in an environment of its own, by the defaults of its preset, at windows of 1,000: evidently
(`DataDriftPreset`: tests at 5 % up to 1,000 samples of the reference, distances from .1 above, each column by itself),
nannyml (`UnivariateDriftCalculator`: the Jensen–Shannon distance from .1, the window as one chunk), alibi
(`TabularDrift` of alibi-detect: Kolmogorov–Smirnov and χ² at 5 %, Bonferroni's correction). It has drift where it
flags a (changed) column; '–' is where it fails.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from scripts.drawn_streams import BEGIN, Columns, Kind, list_changes, list_clean_kinds


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--looks", type=int, default=100)
    parser.add_argument("--only", default="", help="a pattern of the rows' names")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--peer-looks", type=int, default=10)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        serve_peer(args.child)
        return
    peers = {name: start_peer(name, python) for name, _, python in (each.partition("=") for each in args.peer)}
    for title, kinds in (("clean", list_clean_kinds()), ("changed", list_changes())):
        print(f"| {' | '.join([title, 'N', 'detected, %', 'alert', 'undecided', *peers])} |")
        print("|---" * (5 + len(peers)) + "|")
        for kind in kinds:
            if re.search(args.only, kind.name):
                print_row(kind, args.seed, args.looks, peers, args.peer_looks)


def print_row(kind: Kind, seed: int, looks: int, peers: dict[str, subprocess.Popen[str]], peer_looks: int) -> None:
    """Print the row of a kind; several sizes share its cells."""
    cells: list[list[str]] = []
    flags: dict[str, list[bool | None]] = {name: [] for name in peers}
    for n in kind.sizes:
        outcomes = []
        for number in range(looks if kind.change is None or n < 10_000 else max(1, looks // 4)):
            random = np.random.default_rng([seed, zlib.crc32(kind.name.encode()), n, number])
            reference = (kind.base or kind.draw)(random, random.uniform(0, 168 * 8, kind.samples))
            end = 168 * 20 + random.uniform(0, 168)
            hours = np.sort(random.uniform(end - kind.span, end, n))
            window = kind.draw_window(random, hours)
            earlier = kind.draw_earlier(random, end, n) if kind.weeks else None
            times = BEGIN + (hours * 3.6e9).astype("timedelta64[us]")
            outcomes.append(look_at(kind.changed, reference, window, times[: 0 if kind.weeks is None else n], earlier))
            for name, process in peers.items() if n == 1000 and number < peer_looks else ():
                flags[name].append(ask_peer(process, kind.changed, reference, window))
        detected, alert, undecided = (list(each) for each in zip(*outcomes, strict=True))
        shares = [f"{100 * sum(each) / len(each):.0f}" for each in (alert, undecided)]
        cells.append([f"{n:,}", format_share(detected, kind.change is None), *shares])
    ours = [" · ".join(each) for each in zip(*cells, strict=True)]
    theirs = ["–" if None in flag else f"{sum(map(bool, flag))} of {len(flag)}" for flag in flags.values()]
    print(f"| {' | '.join([kind.name, *ours, *theirs])} |", flush=True)


def format_share(found: Sequence[bool], is_clean: bool) -> str:
    """Return a share in percent with the end of its Wilson interval that a goal is about."""
    from mlscale.stats.intervals import compute_wilson_interval

    share = compute_wilson_interval(sum(found), len(found), 0.95)
    end = f"≤ {100 * share.high:.1f}" if is_clean else f"≥ {100 * share.low:.0f}"
    return f"{100 * share.value:.0f} ({end})"


def look_at(changed: str, reference: Columns, columns: Columns, times: Any, earlier: Any) -> tuple[bool, bool, bool]:
    """Return whether drift is detected, is worth an alert, and is undecided, in one column or ('') in any."""
    from mlscale.monitor.baseline import Baseline
    from mlscale.monitor.event_window import EventWindow
    from mlscale.monitor.window_check import MonitorLimits, check_rules
    from mlscale.task_types.event_forms import AnswerNames
    from mlscale.task_types.registry import get_task_type

    sketches = tuple(build_sketch(name, values) for name, values in reference.items())
    baseline = Baseline("m", "m:v1", get_task_type("classification"), AnswerNames(), sketches, None)
    latency = np.zeros(len(next(iter(columns.values()))), np.float32)
    window, limits = EventWindow(columns, latency, times=times, earlier=earlier), MonitorLimits()
    results = [column for column in check_rules(baseline, window, limits).columns if changed in ("", column.name)]
    detected = [column for column in results if column.is_detected]
    is_alert = any(column.distance >= limits.min_distance for column in detected)
    return bool(detected), is_alert, not detected and any(column.may_be_cycle for column in results)


def build_sketch(name: str, values: Any) -> Any:
    """Return the sketch of a column of the reference, as `mlscale export` makes it."""
    from mlscale.reference.column_sketch import build_category_sketch, build_number_sketch

    group: Any = f"{name.partition('.')[0]}s"
    if values.dtype == object:
        return build_category_sketch(name, group, values.tolist(), is_ordered=False)
    return build_number_sketch(name, group, values, is_ordered=False)


def start_peer(name: str, python: str) -> subprocess.Popen[str]:
    """Start another package in a process of its environment."""
    pipe, command = subprocess.PIPE, [python, "-m", "scripts.bench_streams", "--child", name]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def ask_peer(process: subprocess.Popen[str], changed: str, *sides: Columns) -> bool | None:
    """Return whether a package flags one column, or ('') any; None where it fails."""
    assert process.stdin
    assert process.stdout
    with tempfile.TemporaryDirectory() as folder:
        for number, columns in enumerate(sides):
            arrays = {name: values for name, values in columns.items() if name != "group"}
            texts = {name: values.astype(str) for name, values in arrays.items() if values.dtype == object}
            np.savez(f"{folder}/{number}.npz", **(arrays | texts))
        print(folder, file=process.stdin, flush=True)
        found: list[str] | None = json.loads(process.stdout.readline())
    return None if found is None else changed in found if changed else bool(found)


def serve_peer(name: str) -> None:
    """Answer each folder on the standard input with the columns that a package flags."""
    find = {"evidently": run_evidently, "nannyml": run_nannyml, "alibi": run_alibi}[name]
    # Packages print what they do.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            found: list[str] | None = find(*(dict(np.load(f"{line.strip()}/{number}.npz")) for number in (0, 1)))
        except Exception as error:  # a peer may refuse a window: a '–' in the table, with its reason here
            print(f"{name}: {type(error).__name__}: {error}"[:300], file=sys.stderr)
            found = None
        print(json.dumps(found), file=answers, flush=True)


def run_evidently(reference: Columns, window: Columns) -> list[str]:
    """Return the columns that the preset of Evidently flags."""
    pandas, evidently, presets = map(import_module, ("pandas", "evidently", "evidently.presets"))
    report = evidently.Report([presets.DataDriftPreset()], include_tests=True)
    tests = report.run(pandas.DataFrame(window), pandas.DataFrame(reference)).dict()["tests"]
    failed = (test["name"] for test in tests if test["status"] == "FAIL")
    return [name.rpartition(" ")[2] for name in failed if name.startswith("Value Drift for column")]


def run_nannyml(reference: Columns, window: Columns) -> list[str]:
    """Return the columns that NannyML raises an alert of."""
    pandas, nannyml = map(import_module, ("pandas", "nannyml"))
    before, now = pandas.DataFrame(reference), pandas.DataFrame(window)
    result = nannyml.UnivariateDriftCalculator(list(window), chunk_size=len(now)).fit(before).calculate(now)
    table = result.filter(period="analysis").to_df()
    return sorted({key[0] for key in table if key[-1] == "alert" and bool(table[key].any())})


def run_alibi(reference: Columns, window: Columns) -> list[str]:
    """Return the columns that alibi-detect has below its threshold."""
    detectors = import_module("alibi_detect.cd")
    texts = {name: np.unique(np.r_[reference[name], window[name]]) for name in window if window[name].dtype.kind == "U"}
    sides = [
        np.stack([np.searchsorted(texts[key], side[key]) if key in texts else side[key] for key in window], 1)
        for side in (reference, window)
    ]
    levels = {list(window).index(key): list(range(len(names))) for key, names in texts.items()}
    found = detectors.TabularDrift(sides[0], categories_per_feature=levels or None).predict(sides[1])["data"]
    if np.isnan(found["p_val"]).any():
        raise ValueError("the test takes no missing values")
    return [key for key, p in zip(window, found["p_val"], strict=True) if p < found["threshold"]]


if __name__ == "__main__":
    main()
