"""Promoted is what is surely better on the window and surely not much worse on what came before."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.servable import Servable
from mlscale.retrain.gate import promotion_decision
from mlscale.retrain.gate.gate_limits import GateLimits
from mlscale.retrain.gate.promotion_decision import decide_promotion
from mlscale.stats.intervals import Interval
from mlscale.stats.paired import compute_mcnemar_mid_p, compute_score_interval
from mlscale.stats.timing import CallTime, TimesCompared, compare_times
from tests.unit.retrain.gate.fake_servables import classify, make_servable

BOUNDS = GateLimits(alpha=0.05, max_drop=0.03, max_latency_ratio=50)
OVERALL = replace(BOUNDS, max_class_drop=1)  # for what is about all samples
LABELS = ("0", "1")


@pytest.fixture(autouse=True)
def equally_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about speed."""
    times = TimesCompared(CallTime(1, 1), CallTime(1, 1), Interval(1, 1, 1), 16)
    monkeypatch.setattr(promotion_decision, "compare_times", lambda *_, **__: times)


def model(threshold: float) -> Servable:
    """A servable that says '1' where the only value is above a threshold."""

    def compute_logits(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {"logits": np.concatenate([np.zeros_like(x), x - np.float32(threshold)], 1)}

    return make_servable(compute_logits, labels=LABELS)


def samples(count: int, threshold: float, seed: int = 0) -> list[tuple[NDArray[Any], NDArray[np.int64]]]:
    """Values from 0 to 1, '1' above a threshold, in two batches."""
    values = np.random.default_rng(seed).random((count, 1), np.float32)
    numbers = (values[:, 0] > threshold).astype(np.int64)
    half = count // 2
    return [(values[:half], numbers[:half]), (values[half:], numbers[half:])]


def test_better_and_not_worse() -> None:
    # What is right has moved from 0.5 to 0.7, and on the old data the two hardly differ.
    judged = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(300, 0.6, seed=1), BOUNDS)
    assert judged.metrics["challenger_window_accuracy"] == 1
    assert judged.metrics["champion_window_accuracy"] == pytest.approx(0.8, abs=0.1)
    assert judged.metrics["original_samples"] == 300
    assert [reason for reason in judged.objections if "held-out" in reason] == []


def test_all_gates_hold() -> None:
    judged = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(300, 0.7, seed=1), BOUNDS)
    assert judged.objections == ()
    assert judged.metrics["original_difference_low"] > 0


def test_forgetting_is_held_against_it() -> None:
    judged = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(300, 0.5, seed=1), BOUNDS)
    reason, by_class = judged.objections
    assert by_class.startswith("1 of 2 classes are worse on the original data: 1: 1 to 0.")
    assert reason.startswith("on the 300 original samples it may be worse by ")
    assert "gate.max_drop 3.00%" in reason


def test_a_little_better_is_not_surely_better() -> None:
    one_more = [(np.array([[0.6], [0.9], [0.1]], np.float32), np.array([0, 1, 0]))]
    judged = decide_promotion(model(0.5), model(0.7), one_more, samples(300, 0.7), BOUNDS)
    assert judged.objections == (
        "it is not surely better on the 3 held-out samples: 1 more right, 0 more wrong (p 0.25, gate.alpha 0.05; "
        "at least 4 are needed)",
    )


def test_the_same_model_is_not_better() -> None:
    (reason,) = decide_promotion(model(0.5), model(0.5), samples(100, 0.7), samples(100, 0.5), BOUNDS).objections
    assert "(p 1, gate.alpha 0.05)" in reason


def test_a_slow_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion_decision, "compare_times", compare_times)
    bounds = replace(BOUNDS, max_latency_ratio=1e-3)
    judged = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(100, 0.7), bounds)
    (reason,) = judged.objections
    assert reason.startswith("one sample takes ")
    assert "× as long (" in reason
    assert "gate.max_latency_ratio 0.001)" in reason
    figures = judged.metrics
    assert figures["latency_ratio_low"] <= figures["latency_ratio"] <= figures["latency_ratio_high"]
    assert min(figures[f"{who}_cpu_ms"] for who in ("champion", "challenger")) > 0
    # By the wall clock only on a machine that is not busy.
    assert all(value > 0 for name, value in figures.items() if name.endswith("_latency_ms"))


@pytest.mark.parametrize(("low", "high", "reasons"), [(1.2, 1.3, 0), (1.2, 1.301, 1), (1.301, 1.4, 1)])
def test_undecided_speed_keeps_the_champion(
    monkeypatch: pytest.MonkeyPatch, low: float, high: float, reasons: int
) -> None:
    times = TimesCompared(CallTime(1, 1), CallTime(1, 1), Interval(1.25, low, high), 16)
    monkeypatch.setattr(promotion_decision, "compare_times", lambda *_, **__: times)
    bounds = replace(BOUNDS, max_latency_ratio=1.3)
    against = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(300, 0.7), bounds).objections
    assert len(against) == reasons
    assert any("undecided" in each for each in against) == (low <= 1.3 < high)
    for each in against:
        assert f"one sample takes 1.25× as long ({low:.2f} to {high:.2f}, gate.max_latency_ratio 1.3)" in each


def test_the_challenger_is_timed_against_the_champion_until_the_bound_is_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[float] = []

    def note_calls(first: Callable[[], Any], second: Callable[[], Any], *, bound: float) -> TimesCompared:
        seen.extend((-float(first()["logits"][0, 1]), -float(second()["logits"][0, 1]), bound))
        assert first()["logits"].shape == second()["logits"].shape == (1, 2)  # the time of one sample
        return TimesCompared(CallTime(3, 4), CallTime(1, 2), Interval(1.2, 1.1, 1.25), 16)

    monkeypatch.setattr(promotion_decision, "compare_times", note_calls)
    bounds = replace(BOUNDS, max_latency_ratio=1.3)
    figures = decide_promotion(
        model(0.5), model(0.7), [(np.zeros((20, 1), np.float32), np.zeros(20, int))], samples(20, 0.7), bounds
    ).metrics
    assert seen == pytest.approx([0.7, 0.5, 1.3])
    assert [figures[f"{who}_{clock}_ms"] for who in ("challenger", "champion") for clock in ("cpu", "latency")] == [
        3, 4, 1, 2,
    ]  # fmt: skip
    assert [figures[f"latency_ratio{end}"] for end in ("", "_low", "_high")] == [1.2, 1.1, 1.25]


def differing(gained: int, lost: int, same: int) -> list[tuple[NDArray[Any], NDArray[np.int64]]]:
    """Samples of which the model at 0.7 has so many right and wrong where the one at 0.5 is the other way round."""
    values = np.array([0.6] * (gained + lost) + [0.9] * same, np.float32)[:, None]
    return [(values, np.array([0] * gained + [1] * (lost + same)))]


@pytest.mark.parametrize(
    ("gained", "lost", "alpha", "better"),
    # One-sided mid-p: 5 to 0 is 1/64, 4 to 0 is 1/32, 7 to 1 is 0.0195; two-sided would be twice that.
    [
        (4, 0, 0.05, True), (4, 0, 0.03, False), (5, 0, 0.03, True), (5, 0, 1 / 64, True), (5, 0, 0.015, False),
        (7, 1, 0.02, True), (7, 1, 0.019, False), (0, 7, 0.4, False),
    ],
)  # fmt: skip
def test_alpha_is_of_one_side(gained: int, lost: int, alpha: float, better: bool) -> None:
    bounds = replace(BOUNDS, alpha=alpha, max_drop=1)
    judged = decide_promotion(model(0.5), model(0.7), differing(gained, lost, 20), samples(50, 0.7), bounds)
    assert judged.metrics["window_p_better"] == compute_mcnemar_mid_p(gained, lost)[1]
    assert (judged.objections == ()) == better


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_lower_end_of_the_difference_decides(alpha: float) -> None:
    original = differing(3, 5, 292)
    low = compute_score_interval(3, 5, 300, 1 - alpha)[0]
    assert low < -2 / 300
    for max_drop, holds in ((-low + 1e-6, True), (-low, True), (-low - 1e-6, False), (2 / 300 + 1e-6, False)):
        bounds = replace(OVERALL, alpha=alpha, max_drop=max_drop)
        judged = decide_promotion(model(0.5), model(0.7), differing(30, 0, 0), original, bounds)
        assert judged.metrics["original_difference"] == pytest.approx(-2 / 300)
        assert judged.metrics["original_difference_low"] == pytest.approx(low)
        assert judged.metrics["champion_original_accuracy"] == pytest.approx(297 / 300)
        assert judged.metrics["challenger_original_accuracy"] == pytest.approx(295 / 300)
        assert (judged.objections == ()) == holds
        if not holds:
            (reason,) = judged.objections
            assert f"may be worse by {-low:.2%} (measured -0.67%, gate.max_drop {max_drop:.2%})" in reason


def deal(classes: int, each: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), each))


def confuse(numbers: NDArray[np.int64], classes: int, share: float, seed: int) -> NDArray[np.int64]:
    """Predictions of which a share is wrong."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(numbers)) < share
    return np.where(wrong, (numbers + rng.integers(1, classes, len(numbers))) % classes, numbers)


def columns(*numbers: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.stack(numbers, 1).astype(np.float32)


@dataclass
class Drift:
    """Ten classes, with a column of samples for each model's predictions; in production 3 and 7 have changed places."""

    champion: Servable
    challenger: Servable
    window: list[tuple[NDArray[Any], NDArray[np.int64]]]
    original: list[tuple[NDArray[Any], NDArray[np.int64]]]


TEN = tuple("abcdefghij")


def swap(numbers: NDArray[np.int64], first: int = 3, second: int = 7) -> NDArray[np.int64]:
    return np.where(numbers == first, second, np.where(numbers == second, first, numbers))


@pytest.fixture
def drift() -> Drift:
    old, new = deal(10, 30), deal(10, 20, seed=1)
    parts = [
        columns(confuse(shown, 10, 0.1, seed), swap(confuse(shown, 10, 0.05, seed + 9)))
        for seed, shown in enumerate((new, old))
    ]
    models = [make_servable(classify(column, 10), labels=TEN, width=2) for column in (0, 1)]
    return Drift(models[0], models[1], [(parts[0], swap(new))], [(parts[1], old)])


def test_swapped_classes_are_named_and_a_person_may_accept_them(drift: Drift) -> None:
    judged = decide_promotion(drift.champion, drift.challenger, drift.window, drift.original, BOUNDS)
    overall, classes, window = judged.objections
    assert overall.startswith("on the 300 original samples it may be worse by")
    assert classes.startswith("2 of 10 classes are worse on the original data: ")
    assert {change.name for change in judged.classes.list_worse_classes()} == {"d", "h"}
    assert "that the champion predicts as d are labelled otherwise, mostly h" in window
    assert window.endswith("their meaning has changed, then gate.relabelled=[d,h]")
    assert judged.metrics["original_negative_flips"] > 50
    accepted = replace(BOUNDS, relabelled=("d", "h"))
    judged = decide_promotion(drift.champion, drift.challenger, drift.window, drift.original, accepted)
    assert judged.objections == ()
    assert judged.metrics["original_samples"] == 240
    assert {change.name for change in judged.classes.original} == set(TEN) - {"d", "h"}
    assert {change.name for change in judged.classes.window} == set(TEN)
    one = replace(BOUNDS, relabelled=("d",))
    assert any("[d,h]" in reason for reason in decide_promotion(
        drift.champion, drift.challenger, drift.window, drift.original, one
    ).objections)  # fmt: skip


def test_without_original_data_the_window_alone_decides(drift: Drift) -> None:
    limits = replace(BOUNDS, old=False)
    judged = decide_promotion(drift.champion, drift.challenger, drift.window, drift.original, limits)
    assert judged.objections == ()
    assert not [name for name in judged.metrics if "original" in name]


@pytest.mark.parametrize(
    ("relabelled", "what", "fix"),
    [
        (("d", "z"), "unknown class 'z'", "gate.relabelled=[a,b]"),
        (TEN, "all classes are declared relabelled", "gate.old=false"),
    ],
)
def test_unknown_relabelled_classes_are_refused(drift: Drift, relabelled: tuple[str, ...], what: str, fix: str) -> None:
    with pytest.raises(MLScaleError, match=what) as caught:
        decide_promotion(
            drift.champion, drift.challenger, drift.window, drift.original, replace(BOUNDS, relabelled=relabelled)
        )
    assert fix in caught.value.fix
    assert what.startswith("all") or "a, b, c, d" in caught.value.why


@pytest.mark.parametrize("classes", [10, 50])
def test_one_poisoned_class_is_not_promoted_and_a_better_model_is(classes: int) -> None:
    labels = tuple(f"c{number}" for number in range(classes))
    models = [make_servable(classify(column, classes), labels=labels, width=2) for column in (0, 1)]
    old, new = deal(classes, 1000 // classes), deal(classes, 2000 // classes, seed=1)
    for is_poisoned in (False, True):
        parts = []
        for seed, shown in enumerate((new, old)):
            better = confuse(shown, classes, 0.05, seed + 9)
            parts.append(
                columns(confuse(shown, classes, 0.1, seed), np.where(shown == 4, 5, better) if is_poisoned else better)
            )
        truth = np.where(new == 4, 5, new) if is_poisoned else new
        judged = decide_promotion(models[0], models[1], [(parts[0], truth)], [(parts[1], old)], BOUNDS)
        assert judged.metrics["window_p_better"] < 0.01
        assert bool(judged.objections) == is_poisoned
        if is_poisoned:
            assert judged.objections[-2].startswith(f"1 of {classes} classes are worse")
            assert "gate.relabelled=[c4]" in judged.objections[-1]


def test_a_class_that_the_original_data_hardly_has_is_undecided_only_if_the_window_contradicts_it(drift: Drift) -> None:
    raw, old = drift.original[0]
    few = ~np.isin(old, (3, 7))
    judged = decide_promotion(drift.champion, drift.challenger, drift.window, [(raw[few], old[few])], BOUNDS)
    unknown, window = judged.objections
    assert unknown == "the original data does not show that it still knows d, h"
    assert window.endswith("gate.relabelled=[d,h]")


def test_slices_are_compared(drift: Drift) -> None:
    old = deal(10, 40)
    is_dark = np.arange(400) < 100
    good = confuse(old, 10, 0.02, 1)
    raw = columns(confuse(old, 10, 0.05, 2), np.where(is_dark, (old + 1) % 10, good))
    limits = replace(BOUNDS, max_drop=0.3)
    slices = {"light": ["dark" if dark else "day" for dark in is_dark]}
    new = deal(10, 40)
    window = [(columns(confuse(new, 10, 0.2, 3), new), new)]
    judged = decide_promotion(drift.champion, drift.challenger, window, [(raw, old)], limits, slices=slices)
    assert "slices are worse on the original data: light dark: 0." in judged.objections[-1]
    assert [change.name for change in judged.classes.list_worse_slices()] == ["dark"]


def test_outputs_that_are_not_finite_are_held_against_the_challenger() -> None:
    def compute_logits(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {"logits": np.where(x > 0.95, np.nan, model(0.7).engine.compute({"x": x})["logits"])}

    broken = make_servable(compute_logits, labels=LABELS)
    judged = decide_promotion(model(0.5), broken, samples(100, 0.7), samples(300, 0.7, seed=1), BOUNDS)
    count = sum(int((raw > 0.95).sum()) for raw, _ in [*samples(100, 0.7), *samples(300, 0.7, seed=1)])
    assert judged.objections == (f"its output is not a finite number for {count} samples",)
    judged = decide_promotion(broken, model(0.5), samples(100, 0.5), samples(300, 0.5, seed=1), BOUNDS)
    assert judged.objections == ()
    assert judged.metrics["original_left_out"] + judged.metrics["window_left_out"] == count


def test_models_of_other_classes_are_not_compared() -> None:
    other = make_servable(lambda x: {"logits": x}, labels=("0", "2"))
    with pytest.raises(MLScaleError, match="champion and challenger do not predict the same") as caught:
        decide_promotion(model(0.5), other, samples(10, 0.5), samples(10, 0.5), BOUNDS)
    assert "classification of 0, 1; classification of 0, 2" in caught.value.why


def test_what_it_was_trained_on_shows_which_labels_have_changed(drift: Drift) -> None:
    raw, numbers = drift.window[0]
    few = ~np.isin(numbers, (3, 7))
    window = [(raw[few], numbers[few])]
    for trained, is_named in (([], False), (drift.window, True)):
        judged = decide_promotion(drift.champion, drift.challenger, window, drift.original, BOUNDS, trained=trained)
        assert any("contradict these classes" in reason for reason in judged.objections) == is_named
        assert set(judged.classes.relabelled) == ({"d", "h"} if is_named else set())
        assert judged.metrics["window_samples"] == few.sum()


def test_samples_that_are_left_out_are_counted_together() -> None:
    def compute_logits(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {"logits": np.where(x > 0.95, np.nan, model(0.7).engine.compute({"x": x})["logits"])}

    raw, numbers = samples(100, 0.7)[0]
    broken, wrong = int((raw > 0.95).sum()), [np.zeros(2, np.float32)] * 3
    window = [([*raw, *wrong], np.append(numbers, [0, 0, 0]))]
    judged = decide_promotion(
        model(0.5), make_servable(compute_logits, labels=LABELS), window, samples(300, 0.7), BOUNDS
    )
    assert broken > 0
    assert judged.metrics["window_left_out"] == broken + 3
    assert judged.metrics["window_samples"] == 50 - broken


def test_no_samples() -> None:
    with pytest.raises(MLScaleError, match="no sample of the held-out window can be compared") as caught:
        decide_promotion(model(0.5), model(0.7), [], samples(10, 0.5), BOUNDS)
    assert caught.value.fix == "mlscale serve <model> sample_share=1, and send labels to POST /labels"
    with pytest.raises(MLScaleError, match="no sample of the original data can be compared") as caught:
        decide_promotion(model(0.5), model(0.7), samples(10, 0.5), [], BOUNDS)
    assert caught.value.fix == "gate.old=false"
    assert decide_promotion(model(0.5), model(0.7), samples(100, 0.7), [], replace(BOUNDS, old=False)).objections == ()
    of_one = [(np.full((4, 1), 0.9, np.float32), np.ones(4, int))]
    with pytest.raises(MLScaleError, match="original data without the relabelled classes can be compared"):
        decide_promotion(model(0.5), model(0.7), samples(10, 0.5), of_one, replace(BOUNDS, relabelled=("1",)))


def test_labels_that_contradict_two_classes_are_named_although_the_challenger_has_learned_neither() -> None:
    labels = ("cat", "dog", "owl", "hen")
    same = make_servable(classify(0, 4), labels=labels)
    truth = np.arange(400) % 4
    x = truth[:, None].astype(np.float32)
    swapped = np.array([1, 0, 2, 3])[truth]
    judged = decide_promotion(same, same, [(x, swapped)], [(x, truth)], BOUNDS)
    (reason,) = [reason for reason in judged.objections if "contradict" in reason]
    assert "contradict cat, dog, which the champion knows on the original data" in reason
    assert reason.endswith("then gate.relabelled=[cat,dog]")
    # A person has confirmed it.
    confirmed = replace(BOUNDS, relabelled=("cat", "dog"))
    judged = decide_promotion(same, same, [(x, swapped)], [(x, truth)], confirmed)
    assert [reason for reason in judged.objections if "contradict" in reason] == []
