"""How often the gate lets wrong labels pass while inputs drift, and how often it asks a person without a need.

    python -m scripts.bench_gate_drift --seed 1 --runs 400

Small networks are trained: a champion on 700 to 5,000 samples of 3 to 50 classes (drawn clusters in 12 columns, or
scikit-learn's digits in 64), and a challenger from its weights on a window of 600 to 5,000, half of each batch the
champion's data, as `retrain` does. In two of three cycles the window's inputs drift (shifted, scaled, turned, noisy,
broken columns). Then one of:

    clean        the labels are right
    shares       classes are more or less frequent than before
    one changed  the inputs of one class alone change, its labels are right
    one          all of a class are labelled as another
    part         50 to 90 % of a class are labelled as another
    rare         the same of a class of 2 %
    swapped      two classes have each other's labels
    slice        a tenth to a sixth of the inputs, by one column, are labelled as one class, or as the next one

Harmful: of 6,000 new samples like the window's, with true labels, the challenger has more than 10 points less right
than the champion among those whose labels were wrong.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.retrain.gate.class_comparison import compare_classes
from mlscale.retrain.gate.gate_limits import GateLimits
from mlscale.retrain.gate.label_doubts import list_label_doubts
from mlscale.retrain.gate.overall_change import compare_overall
from mlscale.retrain.gate.paired_columns import PairedColumns
from mlscale.retrain.gate.promotion_decision import list_objections
from mlscale.stats.intervals import Interval
from mlscale.stats.timing import CallTime, TimesCompared
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Drift = Callable[[Floats], Floats]
WINDOWS = ("clean", "shares", "one changed", "one", "part", "rare", "swapped", "slice")
DRIFTS = ("shifted", "scaled", "turned", "noisy", "broken columns")
HIDDEN, BATCH, FRESH, HARM = 48, 32, 6000, 0.1
TASK_TYPE = get_task_type("classification")
TIMES = TimesCompared(CallTime(1, 1), CallTime(1, 1), Interval(1, 1, 1), 16)


@dataclass
class Source:
    """Samples of classes, drawn by `rng`; digits where `pictures` are given."""

    rng: np.random.Generator
    classes: int
    pictures: tuple[Floats, Ints] | None

    def __post_init__(self) -> None:
        self.columns = 12 if self.pictures is None else self.pictures[0].shape[1]
        clusters = int(self.rng.integers(1, 4))
        spread = self.rng.uniform(0.9, 1.5) * (1 if self.classes < 20 else 1.3)
        self.centres = self.rng.normal(size=(self.classes, clusters, 12)) * spread
        self.noise = self.rng.uniform(0.8, 1.1)

    def draw_samples(self, count: int, shares: Floats) -> tuple[Floats, Ints]:
        """Return inputs (n, columns) and classes (n,)."""
        y = self.rng.choice(self.classes, count, p=shares)
        if self.pictures is not None:
            rows = np.empty(count, np.int64)
            for number in range(self.classes):
                shown = y == number
                rows[shown] = self.rng.choice(np.flatnonzero(self.pictures[1] == number), shown.sum())
            return self.pictures[0][rows] + 0.35 * self.rng.normal(size=(count, self.columns)), y
        x = self.centres[y, self.rng.integers(0, self.centres.shape[1], count)]
        return x + self.noise * self.rng.normal(size=x.shape), y

    def draw_drift(self, kind: str) -> Drift:
        """Return a change of inputs."""
        rng, d = self.rng, self.columns
        if kind == "shifted":
            step = rng.normal(size=d) * rng.uniform(0.3, 1.5)
            return lambda x: x + step
        if kind == "scaled":
            factor = np.exp(rng.normal(size=d) * rng.uniform(0.2, 0.8)) * rng.choice([-1, 1], d, p=[0.1, 0.9])
            return lambda x: x * factor
        if kind == "turned":
            turned, part = np.linalg.qr(rng.normal(size=(d, d)))[0], rng.uniform(0.2, 1)
            return lambda x: (1 - part) * x + part * x @ turned
        if kind == "noisy":
            noise = rng.uniform(0.3, 1)
            return lambda x: x + noise * rng.normal(size=x.shape)
        broken = np.where(np.isin(np.arange(d), rng.choice(d, d // 4, replace=False)), rng.choice([-2.0, 0.0, 3.0]), 1)
        return lambda x: x * broken


class Network:
    """A network with one hidden layer, trained by Adam on the cross-entropy of the class."""

    def __init__(self, rng: np.random.Generator, columns: int, classes: int) -> None:
        shapes = ((columns, HIDDEN), (1, HIDDEN), (HIDDEN, classes), (1, classes))
        self.weights = [rng.normal(size=shape) * (shape[0] > 1) / shape[0] ** 0.5 for shape in shapes]

    def compute_shares(self, x: Floats) -> Floats:
        """Return the probabilities of the classes, (n, classes)."""
        first, shift, second, bias = self.weights
        logits = np.maximum(x @ first + shift, 0) @ second + bias
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(shares / shares.sum(1, keepdims=True))

    def train_network(self, draw: Callable[[], tuple[Floats, Ints]], steps: int, rate: float) -> None:
        """Train on batches that `draw` returns."""
        moments = [(np.zeros_like(weight), np.zeros_like(weight)) for weight in self.weights]
        for step in range(1, steps + 1):
            x, y = draw()
            first, shift, second, _ = self.weights
            hidden = np.maximum(x @ first + shift, 0)
            error = (self.compute_shares(x) - np.eye(second.shape[1])[y]) / len(y)
            back = (error @ second.T) * (hidden > 0)
            slopes = [x.T @ back, back.sum(0)[None], hidden.T @ error, error.sum(0)[None]]
            for weight, slope, (mean, square) in zip(self.weights, slopes, moments, strict=True):
                mean += 0.1 * (slope - mean)
                square += 0.001 * (slope**2 - square)
                slowed = rate * (1 - 0.9 * step / steps)
                weight -= slowed * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)


class Poison:
    """What is wrong with the labels of a window.

    Args:
        rng: draws it.
        window: what the window holds.
        victim, label: the class that is labelled as another, and that one.
        classes: their number.
        x: the window's inputs.
    """

    def __init__(self, rng: np.random.Generator, window: str, victim: int, label: int, classes: int, x: Floats) -> None:
        self.rng, self.window, self.victim, self.label, self.classes = rng, window, victim, label, classes
        self.share = rng.uniform(0.5, 0.9) if window == "part" else 1.0
        # Broken columns have one value: no slice of them.
        self.column = int(rng.choice(np.flatnonzero(x.std(0) > 0.1)))
        width, self.has_one_label = rng.uniform(0.1, 1 / 6), rng.random() < 0.5
        start = rng.uniform(0, 1 - width)
        self.low, self.high = np.quantile(x[:, self.column], [start, start + width])

    def label_samples(self, x: Floats, truth: Ints) -> Ints:
        """Return the labels that the window has for samples."""
        if self.window in ("one", "part", "rare"):
            return np.where((truth == self.victim) & (self.rng.random(len(x)) < self.share), self.label, truth)
        if self.window == "swapped":
            return np.where(truth == self.victim, self.label, np.where(truth == self.label, self.victim, truth))
        if self.window == "slice":
            inside = (x[:, self.column] >= self.low) & (x[:, self.column] <= self.high)
            return np.where(inside, self.label if self.has_one_label else (truth + 1) % self.classes, truth)
        return truth


@dataclass
class Cycle:
    """One cycle.

    Attributes:
        window: what its window holds.
        has_drifted: whether the inputs did.
        objections, doubts: of the gate.
        harm: the share of the samples with wrong labels that the challenger has lost.
    """

    window: str
    has_drifted: bool
    objections: list[str]
    doubts: list[str]
    harm: float


def run_cycle(seed: int, window: str | None = None) -> Cycle:
    """Draw a cycle, train both models, and return what the gate finds."""
    rng = np.random.default_rng(seed)
    window = WINDOWS[rng.integers(len(WINDOWS))] if window is None else window
    source = _draw_source(rng)
    k, victim = source.classes, int(rng.integers(source.classes))
    label = (victim + 1 + int(rng.integers(k - 1))) % k
    shares = np.maximum(np.full(k, 1 / k) if rng.random() < 0.5 else rng.dirichlet(np.full(k, 3)), 0.005)
    if window == "rare":
        shares[victim] = 0.02 * (shares.sum() - shares[victim]) / 0.98
    shares /= shares.sum()
    old, original = source.draw_samples(int(rng.choice([700, 2000, 5000])), shares), int(rng.choice([250, 600, 2000]))
    now = shares * np.exp(rng.normal(size=k) * rng.uniform(0.3, 1.2)) if window == "shares" else shares
    drifts = [source.draw_drift(DRIFTS[rng.integers(len(DRIFTS))])] if rng.random() < 2 / 3 else []

    def change_inputs(x: Floats, y: Ints) -> Floats:
        for drift in drifts:
            x = drift(x)
        return np.where((y == victim)[:, None], changed(x), x) if window == "one changed" else x

    changed = source.draw_drift(DRIFTS[rng.integers(3)])
    (x, truth), (new_x, new_truth) = (
        (change_inputs(*drawn), drawn[1])
        for drawn in (
            source.draw_samples(size, now / now.sum()) for size in (int(rng.choice([600, 1500, 5000])), FRESH)
        )
    )
    poison = Poison(rng, window, victim, label, k, x)
    labels, is_harmed = poison.label_samples(x, truth), poison.label_samples(new_x, new_truth) != new_truth
    held = rng.random(len(x)) < 0.3
    champion = Network(rng, source.columns, k)
    champion.train_network(
        lambda: _draw_rows(rng, *old, BATCH), min(6000, int(rng.choice([10, 25])) * len(old[0]) // BATCH), 3e-3
    )
    challenger = Network(rng, source.columns, k)
    challenger.weights = [weight.copy() for weight in champion.weights]

    def draw_mixed() -> tuple[Floats, Ints]:
        parts = _draw_rows(rng, *old, BATCH // 2), _draw_rows(rng, x[~held], labels[~held], BATCH // 2)
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    challenger.train_network(draw_mixed, min(6000, 40 * int((~held).sum()) // BATCH), 1.5e-3)
    models = champion, challenger
    right = [(model.compute_shares(new_x).argmax(1) == new_truth)[is_harmed] for model in models]
    parts = [_pair_columns(models, x[mask], labels[mask]) for mask in (held, ~held)]
    before = _pair_columns(models, *source.draw_samples(original, shares))
    objections, doubts = judge_columns(before, parts, k)
    return Cycle(
        window, bool(drifts), objections, doubts, float(right[0].mean() - right[1].mean()) if is_harmed.any() else 0
    )


def judge_columns(before: PairedColumns, parts: list[PairedColumns], classes: int) -> tuple[list[str], list[str]]:
    """Return what the gate finds in the predictions of two models: objections, and doubts of the labels."""
    names = AnswerNames(tuple(map(str, range(classes))))
    servable: Any = SimpleNamespace(task_type=TASK_TYPE, names=names)
    # As the tour sets it for so few samples: the margin of error of a share.
    limits = GateLimits(0.05, max(0.03, len(before) ** -0.5) if len(before) < 300 else 0.03, 1.3)
    overall = [
        compare_overall(TASK_TYPE, part, alpha=limits.alpha, tolerance=limits.tolerance) for part in (parts[0], before)
    ]
    ignored = np.zeros(0, np.int64)
    by_class = compare_classes(servable, parts[0], parts[1], before, limits, None, ignored)
    doubts = list_label_doubts(parts, before, names.labels, ignored, limits.min_kappa)
    return list_objections(overall[0], overall[1], by_class, TIMES, limits, 0), doubts


def _draw_source(rng: np.random.Generator) -> Source:
    from sklearn.datasets import load_digits

    if rng.random() < 0.3:
        digits = load_digits()
        return Source(rng, 10, (digits.data / 8 - 1, digits.target))
    return Source(rng, int(rng.choice([3, 4, 6, 10, 20, 50])), None)


def _draw_rows(rng: np.random.Generator, x: Floats, y: Ints, count: int) -> tuple[Floats, Ints]:
    rows = rng.integers(0, len(x), count)
    return x[rows], y[rows]


def _pair_columns(models: tuple[Network, Network], x: Floats, y: Ints) -> PairedColumns:
    sides = []
    for model in models:
        shares = model.compute_shares(x)
        sides.append({"truth": y.astype(np.int32), "predicted": shares.argmax(1), "confidence": shares.max(1)})
    inputs = {f"column {number}": values.tolist() for number, values in enumerate(x.T)}
    return PairedColumns(sides[0], sides[1], np.arange(len(x)), 0, 0, inputs)


def main() -> None:
    """Run the cycles, and print a row for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=400)
    args = parser.parse_args()
    groups: dict[tuple[str, bool], list[Cycle]] = defaultdict(list)
    for number in range(args.runs):
        cycle = run_cycle(args.seed * 1_000_000 + number)
        groups[cycle.window, cycle.has_drifted].append(cycle)
    print("| window | drift | cycles | pass the gates | of them harmful | for a person | promoted | of them harmful |")
    print("|---|---|---|---|---|---|---|---|")
    for window in WINDOWS:
        for has_drifted in (False, True):
            cycles = groups[window, has_drifted]
            passed = [cycle for cycle in cycles if not cycle.objections]
            promoted = [cycle for cycle in passed if not cycle.doubts]
            harmful = [sum(cycle.harm > HARM for cycle in part) for part in (passed, promoted)]
            cells = (len(cycles), len(passed), harmful[0], len(passed) - len(promoted), len(promoted), harmful[1])
            print(f"| {window} | {'yes' if has_drifted else 'no'} | {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
