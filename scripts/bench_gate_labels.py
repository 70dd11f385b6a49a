"""How often the promotion gate lets swapped labels pass, of samples with several labels, and a better challenger.

    python -m scripts.bench_gate_labels --runs 40

Small networks are trained: a champion for a few passes (weak) or many (good) over 700 samples with several labels, and
a challenger from its weights on 490 samples of a window, mixed with the champion's data as `retrain` does; 210 are held
out, 233 are original validation samples. The window is one of:

    same      as the champion's data: any challenger may pass
    drifted   the inputs are others, and the labels right
    one new   samples that have one of the labels look different, the labels are right
    swapped   the first two labels are exchanged: must not pass without a person
    flipped   the first label is its opposite: must not pass
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
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

Floats = NDArray[np.float64]
WINDOWS = ("same", "drifted", "one new", "swapped", "flipped")
TRAINED, WINDOW, ORIGINAL, FEATURES, HIDDEN, BATCH, REPLAY = 700, 700, 233, 12, 48, 32, 0.7
# As the tour sets it for so few samples: the margin of error of a share.
LIMITS = GateLimits(alpha=0.05, max_drop=ORIGINAL**-0.5, max_latency_ratio=1.3)
TASK_TYPE = get_task_type("multilabel")
TIMES = TimesCompared(CallTime(1, 1), CallTime(1, 1), Interval(1, 1, 1), 16)


@dataclass
class Concept:
    """What is right: each label follows from two directions of the inputs.

    Args:
        rng: draws it.
        labels: their number.
    """

    rng: np.random.Generator
    labels: int

    def __post_init__(self) -> None:
        self.directions = self.rng.normal(size=(2, FEATURES, self.labels)) / FEATURES**0.5
        self.turned, _ = np.linalg.qr(self.rng.normal(size=(FEATURES, FEATURES)))

    def draw_samples(self, count: int, window: str) -> tuple[Floats, Floats]:
        """Return inputs (n, features) and labels (n, labels)."""
        x = self.rng.normal(size=(count, FEATURES))
        first, second = x @ self.directions
        y = (first + np.abs(second) > 0.7).astype(np.float64)
        if window == "drifted":
            x = x @ self.turned
        if window == "one new":
            x = np.where(y[:, :1] > 0, x @ self.turned, x)
        if window == "swapped":
            y[:, :2] = y[:, 1::-1]
        if window == "flipped":
            y[:, 0] = 1 - y[:, 0]
        return x, y


class Network:
    """A network with one hidden layer, trained by Adam on the cross-entropy of each label."""

    def __init__(self, rng: np.random.Generator, labels: int) -> None:
        self.rng = rng
        shapes = ((FEATURES, HIDDEN), (1, HIDDEN), (HIDDEN, labels), (1, labels))
        self.weights = [rng.normal(size=shape) * (shape[0] > 1) / shape[0] ** 0.5 for shape in shapes]

    def copy_network(self) -> Network:
        """Return a network with the same weights."""
        copied = Network(self.rng, self.weights[-1].shape[1])
        copied.weights = [weight.copy() for weight in self.weights]
        return copied

    def compute_logits(self, x: Floats) -> Floats:
        """Return the scores of the labels, (n, labels)."""
        first, shift, second, bias = self.weights
        return np.asarray(np.maximum(x @ first + shift, 0) @ second + bias)

    def train_network(self, draw: Callable[[int], tuple[Floats, Floats]], steps: int, rate: float) -> None:
        """Train on batches that `draw` returns."""
        moments = [(np.zeros_like(weight), np.zeros_like(weight)) for weight in self.weights]
        for step in range(1, steps + 1):
            slopes = self._compute_slopes(*draw(BATCH))
            for weight, slope, (mean, square) in zip(self.weights, slopes, moments, strict=True):
                mean += 0.1 * (slope - mean)
                square += 0.001 * (slope**2 - square)
                weight -= rate * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)

    def _compute_slopes(self, x: Floats, y: Floats) -> list[Floats]:
        first, shift, second, bias = self.weights
        hidden = np.maximum(x @ first + shift, 0)
        error = (1 / (1 + np.exp(-(hidden @ second + bias))) - y) / len(x)
        back = (error @ second.T) * (hidden > 0)
        return [x.T @ back, back.sum(0)[None], hidden.T @ error, error.sum(0)[None]]


@dataclass
class GateRun:
    """A challenger and the gate.

    Attributes:
        exact: the champion's exact match on the original data.
        objections: of the gate.
    """

    exact: float
    objections: list[str]


def run_gate(rng: np.random.Generator, labels: int, passes: int, window: str) -> GateRun:
    """Train a champion and a challenger, and return what the gate finds."""
    concept = Concept(rng, labels)
    old, (x, y) = concept.draw_samples(TRAINED, "same"), concept.draw_samples(WINDOW, window)
    held = rng.random(WINDOW) < 0.3
    new = x[~held], y[~held]
    champion = Network(rng, labels)
    champion.train_network(lambda count: _draw_rows(rng, old, count), passes * TRAINED // BATCH, 3e-3)
    challenger = champion.copy_network()

    def draw_mixed(count: int) -> tuple[Floats, Floats]:
        share = round(count * REPLAY)
        parts = _draw_rows(rng, old, share), _draw_rows(rng, new, count - share)
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    steps = round(20 * len(new[0]) / (1 - REPLAY) / BATCH)
    challenger.train_network(draw_mixed, steps, 1.5e-3)
    original = concept.draw_samples(ORIGINAL, "same")
    columns = [_pair_columns(champion, challenger, *part) for part in (original, (x[held], y[held]))]
    return judge_columns(columns[0], columns[1], labels)


def judge_columns(original: PairedColumns, window: PairedColumns, labels: int) -> GateRun:
    """Return what the gate finds in the predictions of two models."""
    names = AnswerNames(tuple(map(str, range(labels))))
    servable: Any = SimpleNamespace(task_type=TASK_TYPE, names=names)
    now, before = (
        compare_overall(TASK_TYPE, part, alpha=LIMITS.alpha, tolerance=LIMITS.tolerance) for part in (window, original)
    )
    by_class = compare_classes(servable, window, None, original, LIMITS, None, np.zeros(0, np.int64))
    return GateRun(before.first, list_objections(now, before, by_class, TIMES, LIMITS, 0))


def _draw_rows(rng: np.random.Generator, samples: tuple[Floats, Floats], count: int) -> tuple[Floats, Floats]:
    rows = rng.integers(0, len(samples[0]), count)
    return samples[0][rows], samples[1][rows]


def _pair_columns(champion: Network, challenger: Network, x: Floats, y: Floats) -> PairedColumns:
    sides = [
        {"truth": y.astype(np.uint8), "predicted": (model.compute_logits(x) > 0).astype(np.uint8)}
        for model in (champion, challenger)
    ]
    return PairedColumns(sides[0], sides[1], np.arange(len(x)), 0, 0)


def main() -> None:
    """Run all settings, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--labels", type=int, nargs="+", default=[3, 10])
    parser.add_argument("--passes", type=int, nargs="+", default=[3, 10, 40])
    args = parser.parse_args()
    print(f"| labels | champion's passes | its exact match | {' | '.join(WINDOWS)} |")
    print(f"|{'---|' * (len(WINDOWS) + 3)}")
    for labels in args.labels:
        for passes in args.passes:
            exact, cells = [], []
            for window in WINDOWS:
                rng = np.random.default_rng(args.seed)
                runs = [run_gate(rng, labels, passes, window) for _ in range(args.runs)]
                exact += [run.exact for run in runs]
                cells.append(f"{sum(not run.objections for run in runs)} of {args.runs}")
            print(f"| {labels} | {passes} | {np.mean(exact):.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
