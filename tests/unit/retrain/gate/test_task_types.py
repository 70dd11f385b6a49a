"""The gate of each task type: its own metric, test, classes and flips."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.commands.retrain.cycle_result import build_class_blocks, build_class_entries
from mlscale.errors import MLScaleError
from mlscale.export.servable import Servable
from mlscale.retrain.gate import promotion_decision
from mlscale.retrain.gate.gate_limits import GateLimits
from mlscale.retrain.gate.promotion_decision import GateDecision, decide_promotion
from mlscale.stats.intervals import Interval
from mlscale.stats.timing import CallTime, TimesCompared
from tests.unit.retrain.gate.fake_servables import make_servable

LIMITS = GateLimits(alpha=0.05, max_drop=0.03, max_latency_ratio=1.3)
Sample = tuple[NDArray[Any], NDArray[Any]]


@pytest.fixture(autouse=True)
def equally_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    times = TimesCompared(CallTime(1, 1), CallTime(1, 1), Interval(1, 1, 1), 16)
    monkeypatch.setattr(promotion_decision, "compare_times", lambda *_, **__: times)


def decide(models: list[Servable], window: Sample, original: Sample, limits: GateLimits = LIMITS) -> GateDecision:
    return decide_promotion(models[0], models[1], [window], [original], limits)


def regress(bias: float, targets: int = 1) -> Servable:
    """Noise in one column of a sample is the champion's error; the challenger's is smaller, with a bias."""
    names = tuple("uvw"[:targets])

    def compute_value(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        noise = x[:, 1:] * (1 if bias < 0 else 0.7)
        return {"value": np.tile(x[:, :1] + noise + max(bias, 0), (1, targets)).astype(np.float32)}

    return make_servable(compute_value, "regression", targets=names, width=2)


def draw(count: int, seed: int, targets: int = 1) -> Sample:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (count, 2)).astype(np.float32)
    return x, np.tile(x[:, :1], (1, targets))


def test_numbers_that_are_nearer_are_promoted() -> None:
    judged = decide([regress(-1), regress(0)], draw(160, 0), draw(200, 1))
    assert judged.objections == ()
    assert judged.metric.name == "rmse"
    assert judged.metrics["challenger_window_rmse"] == pytest.approx(0.7 * judged.metrics["champion_window_rmse"])
    assert judged.metrics["original_difference"] == pytest.approx(0.3)
    assert judged.metrics["original_negative_flips"] == 0
    assert judged.metrics["original_positive_flips"] > 100


def test_numbers_that_are_farther_are_not() -> None:
    better, worse = decide([regress(-1), regress(2)], draw(160, 0), draw(200, 1)).objections
    assert better.startswith(
        "it is not surely better on the 60 held-out samples: rmse" if False else "it is not surely"
    )
    assert "RMSE 2." in better
    assert "of the champion's RMSE" in worse
    assert worse.endswith("if what is right has changed for all: gate.old=false force=true")
    x, y = draw(160, 0)
    moved = (x, y + 2)  # what is right has changed
    stopped = decide([regress(-1), regress(2)], moved, draw(200, 1))
    assert len(stopped.objections) == 1
    assert decide([regress(-1), regress(2)], moved, draw(200, 1), replace(LIMITS, old=False)).objections == ()


def test_too_few_samples_are_counted() -> None:
    better, worse = decide([regress(-1), regress(0)], draw(4, 0), draw(9, 1)).objections
    assert "at least 150 are needed" in better
    assert worse.startswith("9 original samples are too few to compare on, at least 10 are needed")
    assert "original_difference_low" not in decide([regress(-1), regress(0)], draw(4, 0), draw(9, 1)).metrics


def test_a_target_that_got_worse_is_named() -> None:
    def spoil(value: NDArray[Any]) -> NDArray[Any]:
        return value + np.array([0, 3, 0], np.float32)

    good, models = regress(0, 3), [regress(-1, 3)]
    models.append(
        make_servable(
            lambda x: {"value": spoil(good.engine.compute({"x": x})["value"])},
            "regression",
            targets=tuple("uvw"),
            width=2,
        )
    )
    x, y = draw(160, 0, 3)
    judged = decide(models, (x, spoil(y)), draw(300, 1, 3))
    assert any(reason.startswith("1 of 3 classes are worse on the original data: v: ") for reason in judged.objections)
    accepted = decide(models, (x, spoil(y)), draw(300, 1, 3), replace(LIMITS, relabelled=("v",)))
    assert accepted.objections == ()
    assert [change.name for change in accepted.classes.original] == ["u", "w"]
    with pytest.raises(MLScaleError, match="unknown class 'x'"):
        decide(models, (x, y), draw(300, 1, 3), replace(LIMITS, relabelled=("x",)))
    with pytest.raises(MLScaleError, match="a model of regression has no classes to leave out") as caught:
        decide([regress(-1), regress(0)], draw(160, 0), draw(160, 0), replace(LIMITS, relabelled=("x",)))
    assert caught.value.fix == "gate.old=false"


def bits(column: int, labels: tuple[str, ...]) -> Servable:
    """The labels whose bits a column of the sample has."""

    def compute_logits(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        has = x[:, column].astype(int)[:, None] >> np.arange(len(labels)) & 1
        return {"logits": (2.0 * has - 1).astype(np.float32)}

    return make_servable(compute_logits, "multilabel", labels=labels, width=2)


@pytest.mark.parametrize("is_poisoned", [False, True])
def test_a_poisoned_label_is_named(is_poisoned: bool) -> None:
    rng = np.random.default_rng(0)
    labels = tuple("abcdef")
    models = [bits(column, labels) for column in (0, 1)]

    def draw_labels(count: int, is_window: bool) -> Sample:
        truth = rng.integers(0, 64, count)
        flips = [np.where(rng.random(count) < share, 1 << rng.integers(0, 6, count), 0) for share in (0.2, 0.1)]
        second = (truth & ~4) if is_poisoned else truth  # 'c' is never set
        given = second if is_window else truth
        x = np.stack([truth ^ flips[0], second ^ (0 if is_poisoned else flips[1])], 1).astype(np.float32)
        return x, (given[:, None] >> np.arange(6) & 1).astype(np.uint8)

    judged = decide(models, draw_labels(200, True), draw_labels(300, False))
    assert judged.metric.name == "exact_match"
    assert bool(judged.objections) == is_poisoned
    if is_poisoned:
        assert [change.name for change in judged.classes.list_worse_classes()] == ["c"]
        accepted = replace(LIMITS, relabelled=("c",))
        assert decide(models, draw_labels(200, True), draw_labels(300, False), accepted).objections == ()


def paint(column: int) -> Servable:
    """Masks of 4 × 4 pixels in two halves; the class of each half is in the sample."""

    def compute_logits(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        halves = x[:, 2 * column : 2 * column + 2].astype(int)
        masks = np.repeat(np.repeat(halves[:, :, None], 2, 1), 4, 2)
        return {"logits": np.moveaxis(np.eye(4, dtype=np.float32)[masks], 3, 1)}

    return make_servable(compute_logits, "segmentation", labels=("sky", "tree", "car", "road"), width=4)


def test_masks_are_compared_class_by_class() -> None:
    rng = np.random.default_rng(0)

    def draw_masks(count: int, is_swapped: bool) -> Sample:
        halves = rng.integers(0, 4, (count, 2))
        noise = np.where(rng.random((count, 2)) < 0.15, rng.integers(0, 4, (count, 2)), halves)
        second = np.where(halves == 2, 3, halves)
        truth = second if is_swapped else halves
        masks = np.repeat(np.repeat(truth[:, :, None], 2, 1), 4, 2).astype(np.uint8)
        return np.concatenate([noise, second], 1).astype(np.float32), masks

    judged = decide([paint(0), paint(1)], draw_masks(60, True), draw_masks(200, False))
    assert judged.metric.name == "miou"
    assert {change.name for change in judged.classes.list_worse_classes()} == {"car", "road"}
    assert judged.metrics["original_negative_flips"] > 50
    # Pixels of a car that are called road count against the road, too.
    left = decide(
        [paint(0), paint(1)], draw_masks(60, True), draw_masks(200, False), replace(LIMITS, relabelled=("car",))
    )
    assert [change.name for change in left.classes.list_worse_classes()] == ["road"]
    both = replace(LIMITS, relabelled=("car", "road"))
    assert decide([paint(0), paint(1)], draw_masks(60, True), draw_masks(200, False), both).objections == ()


@pytest.mark.parametrize(("factor", "is_promoted"), [(0.8, True), (1.2, False)])
def test_texts(factor: float, is_promoted: bool) -> None:
    def read(scale: float) -> Callable[[NDArray[Any]], dict[str, NDArray[Any]]]:
        return lambda x: {"nats": x[:, 0] * scale, "tokens": np.full(len(x), 10)}

    models = [make_servable(read(scale), "language") for scale in (1.0, factor)]
    rng = np.random.default_rng(0)
    parts = [(rng.gamma(9, 1, (count, 1)).astype(np.float32), np.zeros(count, int)) for count in (60, 200)]
    judged = decide(models, parts[0], parts[1])
    assert judged.metric.name == "bits_per_byte"
    assert len(judged.objections) == (0 if is_promoted else 2)
    assert judged.metrics["original_difference"] == pytest.approx(1 - factor, abs=1e-6)
    assert judged.metrics["original_positive_flips" if is_promoted else "original_negative_flips"] > 180
    assert build_class_blocks(judged.classes, is_share=False) == []


def test_the_table_has_both_parts_of_each_class() -> None:
    judged = decide(
        [regress(-1, 3), regress(0, 3)], draw(60, 0, 3), draw(200, 1, 3), replace(LIMITS, relabelled=("w",))
    )
    entries = build_class_entries(judged.classes)
    assert [entry["name"] for entry in entries] == ["u", "v", "w"]
    assert ["original" in entry for entry in entries] == [True, True, False]
    assert entries[0]["original"]["status"] == "kept"
    assert entries[0]["window"]["samples"] == 60
    heading, table = build_class_blocks(judged.classes, is_share=False)
    assert heading.title == "Target by target"
    assert table.columns[0] == "target"  # type: ignore[union-attr]
    alone = replace(judged.classes, original=judged.classes.original[:1], window=judged.classes.window[:1])
    assert build_class_blocks(alone, is_share=False) == []
    assert [row[0] for row in table.rows] == ["u", "v", "w"]  # type: ignore[union-attr]
