"""Takes every recipe, and a user's own data of each task type, through `mlscale lifecycle`, and prints a table.

    python -m scripts.all_lifecycles [--only tabular 'table of numbers'] [--shifts auto concept] [--folder build/tours]

Each tour is the command that a user types, with its time, its last sentence, and the step that stopped it, if any. Data
sets of a user's own are written by `scripts/lifecycle_data.py`. A language model has no labels, and no concept drift.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from scripts.all_recipes import list_recipes
from scripts.lifecycle_data import DATA_SETS

_SECONDS = 3600
_WITHOUT_LABELS = ("gpt", "documents")


@dataclass
class TourOutcome:
    """What became of a tour.

    Attributes:
        name: of the recipe or the data set.
        shift: as typed.
        code: the exit code.
        seconds: it took.
        steps: that passed.
        sentence: its last one.
        page: its page; '' where it was refused.
    """

    name: str
    shift: str
    code: int
    seconds: float
    steps: int
    sentence: str
    page: str


def take_tour(name: str, shift: str, folder: Path, extra: list[str]) -> TourOutcome:
    """Run a tour in a folder of its own, which is created."""
    folder.mkdir(parents=True)
    data = folder / "data"
    data.mkdir()
    words = DATA_SETS[name](data) if name in DATA_SETS else [f"+recipe={name}"]
    start = time.perf_counter()
    command = [sys.executable, "-m", "mlscale", "lifecycle", *words, f"lifecycle.shift={shift}", *extra]
    done = subprocess.run(
        [*command, "snapshot=false", "output=json"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    (folder / "steps.txt").write_text(done.stderr)
    seconds = time.perf_counter() - start
    try:
        result = json.loads(done.stdout)
        steps, sentence, page = int(result["metrics"]["steps"]), result["sentence"], result["artifacts"]["page"]
    except (ValueError, KeyError):
        steps, sentence, page = 0, " ".join(done.stderr.split())[-300:], ""
    return TourOutcome(name, shift, done.returncode, seconds, steps, sentence, page)


def format_table(outcomes: list[TourOutcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    lines = ["| recipe or data | shift | exit code | steps | time | |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {each.name} | {each.shift} | {each.code} | {each.steps} | {each.seconds:.0f} s | {each.sentence} |"
        for each in outcomes
    ]
    return "\n".join(lines)


def main() -> int:
    """Return 0 if all tours passed."""
    names = [*list_recipes(), *DATA_SETS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--shifts", nargs="+", default=["auto", "concept"])
    parser.add_argument("--folder", type=Path, help="where tours stay; a temporary one by default")
    parser.add_argument("--set", nargs="*", default=[], help="more overrides")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.folder or Path(scratch)).absolute()
        for name in arguments.only:
            for shift in arguments.shifts:
                if shift == "concept" and name in _WITHOUT_LABELS:
                    continue
                print(f"{name}, {shift} …", file=sys.stderr, flush=True)
                place = folder / f"{name.replace(' ', '-')}-{shift}"
                outcomes.append(take_tour(name, shift, place, arguments.set))
                print(format_table(outcomes[-1:]), file=sys.stderr, flush=True)
    print(format_table(outcomes))
    return int(any(outcome.code for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
