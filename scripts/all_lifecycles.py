"""Takes every recipe, and a user's own data of each task type, through `mlscale lifecycle`, and prints a table.

    python -m scripts.all_lifecycles [--only tabular 'table of numbers'] [--folder build/tours]

Each tour is the command that a user types. The table has its key metric before the change, under it and after the
retraining, the answers that were dropped or wrong, the CPU time of all its processes, and the last sentence. Data sets
of a user's own are written by `scripts/lifecycle_data.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.all_recipes import list_recipes
from scripts.lifecycle_data import DATA_SETS

_SECONDS = 3600


@dataclass
class TourOutcome:
    """What became of a tour.

    Attributes:
        name: of the recipe or the data set.
        code: the exit code.
        cpu_s: CPU time of all its processes, s.
        metrics: of its result; empty where it was refused.
        sentence: its last one.
        page: its page; '' where it was refused.
    """

    name: str
    code: int
    cpu_s: float
    metrics: Mapping[str, float]
    sentence: str
    page: str


def take_tour(name: str, folder: Path, extra: list[str]) -> TourOutcome:
    """Run a tour in a folder of its own, which is created."""
    folder.mkdir(parents=True)
    data = folder / "data"
    data.mkdir()
    words = DATA_SETS[name](data) if name in DATA_SETS else [f"+recipe={name}"]
    start = _measure_child_cpu()
    command = [sys.executable, "-m", "mlscale", "lifecycle", *words, *extra]
    done = subprocess.run(
        [*command, "snapshot=false", "output=json"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    (folder / "steps.txt").write_text(done.stderr)
    cpu_s = _measure_child_cpu() - start
    try:
        result = json.loads(done.stdout)
        metrics, sentence, page = result["metrics"], result["sentence"], result["artifacts"]["page"]
    except (ValueError, KeyError):
        metrics, sentence, page = {}, " ".join(done.stderr.split())[-300:], ""
    return TourOutcome(name, done.returncode, cpu_s, metrics, sentence, page)


def format_table(outcomes: list[TourOutcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    titles = ("recipe or data", "exit code", "steps", "before → under the shift → after")
    rows = [(*titles, "dropped, wrong of requests", "CPU time", ""), ("---",) * 7]
    rows += [
        (
            each.name,
            str(each.code),
            f"{each.metrics.get('steps', 0):.0f}",
            _describe_change(each.metrics),
            _describe_requests(each.metrics),
            f"{each.cpu_s:.0f} s",
            each.sentence,
        )
        for each in outcomes
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _describe_change(metrics: Mapping[str, float]) -> str:
    """Return the key metric before the change, under it and after the retraining; '' where a tour did not get there."""
    # The name of the metric is a part of the keys: shifted_accuracy_before.
    names = [found[1] for key in metrics if (found := re.fullmatch("shifted_(.+)_before", key))]
    if not names:
        return ""
    keys = [form.format(names[0]) for form in ("served_{}", "shifted_{}_before", "shifted_{}")]
    return f"{names[0]} " + " → ".join(f"{metrics[key]:.4g}" for key in keys)


def _describe_requests(metrics: Mapping[str, float]) -> str:
    if "swap_requests" not in metrics:
        return ""
    return f"{metrics['swap_dropped']:.0f}, {metrics['swap_wrong']:.0f} of {metrics['swap_requests']:,.0f}"


def _measure_child_cpu() -> float:
    """Return the CPU time of all processes that have ended below this one, s: of a busy machine it says more than a
    clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Return 0 if all tours passed."""
    names = [*list_recipes(), *DATA_SETS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--folder", type=Path, help="where tours stay; a temporary one by default")
    parser.add_argument("--set", nargs="*", default=[], help="more overrides")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.folder or Path(scratch)).absolute()
        for name in arguments.only:
            print(f"{name} …", file=sys.stderr, flush=True)
            outcomes.append(take_tour(name, folder / name.replace(" ", "-"), arguments.set))
            print(format_table(outcomes[-1:]), file=sys.stderr, flush=True)
    print(format_table(outcomes))
    return int(any(outcome.code for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
