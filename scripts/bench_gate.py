"""How often the promotion gate lets a poisoned class pass, and a better model.

    python -m scripts.bench_gate --seed 0
    python -m scripts.bench_gate --seed 1 --gain 0.08 --window 1500

Simulated: a champion of 90 % accuracy, with classes of different difficulty; 5,000 labelled samples of production
(`--window`), of which 30 % are held out; original data of 500 to 10,000 samples of 10 to 100 classes. A good challenger
is 3 points better everywhere (`--gain`), and 3 % of all samples become wrong. A poisoned one is the same, but one
class, chosen by chance, was labelled as another in production: it was trained on these labels, and is measured by them
in the window, where it looks better still; on the original data it predicts 95 % of this class as the other. Half of
the sets of original data have equally many samples of each class, half have them by chance. `overall` is the gate
without classes: McNemar's test and Tango's interval alone.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.retrain.gate.class_comparison import compare_classes
from mlscale.retrain.gate.gate_limits import GateLimits
from mlscale.retrain.gate.overall_change import compare_overall
from mlscale.retrain.gate.paired_columns import PairedColumns
from mlscale.retrain.gate.promotion_decision import list_objections
from mlscale.stats.intervals import Interval
from mlscale.stats.timing import CallTime, TimesCompared
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames

ACCURACY, EXCHANGE, COLLAPSE, HELD_OUT = 0.9, 0.03, 0.95, 0.3
GAIN, WINDOW = 0.03, 5000
CLASSES, ORIGINAL = (10, 50, 100), (500, 2000, 10_000)
LIMITS = GateLimits(alpha=0.05, max_drop=0.03, max_latency_ratio=1.3)
TASK_TYPE = get_task_type("classification")
TIMES = TimesCompared(CallTime(1, 1), CallTime(1, 1), Interval(1, 1, 1), 16)


def main() -> None:
    """Simulate all settings, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--gain", type=float, default=GAIN)
    parser.add_argument("--window", type=int, default=WINDOW)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    print("| classes | original samples | poisoned: overall | poisoned: by class | better: by class |")
    print("|---|---|---|---|---|")
    for classes in CLASSES:
        for count in ORIGINAL:
            found = {
                is_poisoned: np.array(
                    [
                        simulate_gate(rng, classes, count, is_poisoned, run % 2 == 0, args.gain, args.window)
                        for run in range(args.runs)
                    ]
                ).sum(0)
                for is_poisoned in (True, False)
            }
            cells = [found[True][0], found[True][1], found[False][1]]
            print(
                f"| {classes} | {count:,} | " + " | ".join(f"{cell} of {args.runs}" for cell in cells) + " |",
                flush=True,
            )


def simulate_gate(
    rng: np.random.Generator,
    classes: int,
    count: int,
    is_poisoned: bool,
    is_balanced: bool,
    gain: float = GAIN,
    samples: int = WINDOW,
) -> tuple[bool, bool]:
    """Return whether the challenger is promoted by all samples together, and class by class."""
    errors = np.clip(rng.beta(2, 18, classes) * (1 - ACCURACY) / 0.1, 0.002, 0.9)
    victim = int(rng.integers(classes)) if is_poisoned else None
    label = (int(victim) + 1 + int(rng.integers(classes - 1))) % classes if victim is not None else 0

    def build_columns(shown: NDArray[np.int64], is_window: bool) -> PairedColumns:
        error = errors[shown]
        is_right = rng.random(len(shown)) > error
        is_lost = rng.random(len(shown)) < EXCHANGE * error / (1 - ACCURACY)
        is_gained = rng.random(len(shown)) < (EXCHANGE + gain) / (1 - ACCURACY)
        wrong = (shown + rng.integers(1, classes, len(shown))) % classes
        first = np.where(is_right, shown, wrong)
        second = np.where(np.where(is_right, ~is_lost, is_gained), shown, wrong)
        truth = shown
        if victim is not None:
            second = np.where((shown == victim) & (rng.random(len(shown)) < COLLAPSE), label, second)
            truth = np.where(shown == victim, label, shown) if is_window else shown
        sides = [{"truth": truth, "predicted": predicted} for predicted in (first, second)]
        return PairedColumns(sides[0], sides[1], np.arange(len(shown)), 0, 0)

    old = np.arange(count) % classes if is_balanced else rng.integers(0, classes, count)
    held_out = round(HELD_OUT * samples)
    parts = [(old, False), *((rng.integers(0, classes, size), True) for size in (held_out, samples - held_out))]
    original, window, trained = (build_columns(shown, is_window) for shown, is_window in parts)
    names = AnswerNames(tuple(map(str, range(classes))))
    champion: Any = SimpleNamespace(task_type=TASK_TYPE, names=names)
    now, before = (
        compare_overall(TASK_TYPE, part, alpha=LIMITS.alpha, tolerance=LIMITS.tolerance) for part in (window, original)
    )
    by_class = compare_classes(champion, window, trained, original, LIMITS, None, np.zeros(0, np.int64))
    overall = now.p_better <= LIMITS.alpha and before.low >= -LIMITS.max_drop
    return overall, not list_objections(now, before, by_class, TIMES, LIMITS, 0)


if __name__ == "__main__":
    main()
