"""Judges: the figures that scikit-learn gives, classes worst first, slices, two models beside each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from numpy.typing import NDArray

from mlscale.atomic_files import convert_to_json
from mlscale.commands.evaluate.entry import build_task_report
from mlscale.errors import MLScaleError
from mlscale.evaluate import slices
from mlscale.evaluate.model_comparison import compare_models
from mlscale.evaluate.sample_collector import EvaluatedSamples, SampleCollector
from mlscale.report import Figure, ImageBlock, TableBlock
from mlscale.report.html import render_page
from mlscale.task_types.collected_samples import TaskInfo
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.reports.classification_report import compute_class_averages
from mlscale.task_types.reports.multilabel_report import compute_micro_f1

NAMES = ("ant", "bee", "cat", "dog")


def classified(seed: int = 0, n: int = 400, k: int = 4, noise: float = 1.5) -> EvaluatedSamples:
    """Samples of k classes; the last class is the hardest."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, k, n)
    strength = np.where(y == k - 1, 1.0, 3.0)
    logits = np.eye(k)[y] * strength[:, None] + np.random.default_rng(seed + 1).normal(size=(n, k)) * noise
    gather = SampleCollector(get_task_type("classification"), TaskInfo(NAMES[:k]))
    x = torch.from_numpy(rng.random((n, 3, 5, 5)).astype(np.float32))
    gather.collect_batch(
        {"logits": torch.from_numpy(logits)}, {"x": x, "y": torch.from_numpy(y), "key": [f"s{i}" for i in range(n)]}
    )
    return gather.collect_samples()


def shown(figures: Any) -> str:
    """The page of these figures; fails where one can't be drawn."""
    return render_page("t", "s", True, {}, {}, figures)


def table(figures: Any, title: str) -> TableBlock:
    return next(each for each in figures if isinstance(each, TableBlock) and title in each.title)


def test_a_classifier() -> None:
    gathered = classified()
    reported = build_task_report(gathered)
    truth, predicted = gathered.columns["truth"], gathered.columns["predicted"]
    figures = reported.metrics
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert figures["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert figures["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "loss", "brier", "ece"):
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]
        assert figures[f"{name}_low"] < figures[f"{name}_high"]
    assert figures["errors"] == (truth != predicted).sum()
    classes = reported.details["classes"]
    assert classes[0]["class"] == "dog"
    assert [each["f1"]["value"] for each in classes] == sorted(each["f1"]["value"] for each in classes)
    precision, recall, f1, support = sk.precision_recall_fscore_support(truth, predicted)
    for each in classes:
        number = NAMES.index(each["class"])
        assert each["support"] == support[number]
        assert each["precision"]["value"] == pytest.approx(precision[number])
        assert each["recall"]["value"] == pytest.approx(recall[number])
        assert each["f1"]["value"] == pytest.approx(f1[number])
        assert each["f1"]["low"] <= each["f1"]["value"] <= each["f1"]["high"]
    assert reported.remarks[0].startswith("the worst class is dog")
    sheet = next(each for each in reported.blocks if isinstance(each, ImageBlock))
    assert sheet.png.startswith(b"\x89PNG")
    html = shown(reported.blocks)
    assert "data:image/png;base64," in html
    assert "Confusion matrix" in html
    json.dumps(convert_to_json(reported.details))


def test_the_sentence_names_the_share_of_a_rare_class() -> None:
    assert "always" not in build_task_report(classified(k=2)).headline
    gather = SampleCollector(get_task_type("classification"), TaskInfo(("ja", "nein")))
    y = torch.arange(50).clamp(max=1)  # one ja
    gather.collect_batch({"logits": torch.tensor([[0.0, 1.0]] * 50)}, (torch.zeros(50, 2), y))
    headline = build_task_report(gather.collect_samples()).headline
    assert " of 50 samples (2.0 % ja; always nein would reach 98.0 %), balanced accuracy 50.0 % [" in headline


def test_two_classes_have_a_threshold_and_one_class_has_not() -> None:
    gathered = classified(k=2)
    figures = build_task_report(gathered).metrics
    truth, score = gathered.columns["truth"], gathered.columns["score"]
    assert figures["auc"] == pytest.approx(sk.roc_auc_score(truth, score))
    assert truth.mean() > 0.5, "the rarer class is the first"
    for positive, info in ((0, None), (0, 0), (1, 1)):
        about = replace(gathered, task_info=replace(gathered.task_info, positive=info))
        report = build_task_report(about)
        expected = sk.average_precision_score(truth == positive, score if positive else 1 - score)
        assert report.metrics["average_precision"] == pytest.approx(expected)
        assert report.metrics["auc"] == figures["auc"]
        assert any(f"'{NAMES[positive]}' is the positive class" in getattr(each, "text", "") for each in report.blocks)
    gather = SampleCollector(get_task_type("classification"), TaskInfo(("no", "yes")))
    gather.collect_batch(
        {"logits": torch.tensor([[2.0, 0.0]] * 5)}, (torch.zeros(5, 2), torch.zeros(5, dtype=torch.long))
    )
    report = build_task_report(gather.collect_samples())
    assert "auc" not in report.metrics
    assert report.remarks[0] == "no errors"
    shown(report.blocks)


def test_labels() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((300, 3)) < [0.5, 0.3, 0.02]).astype(np.float32)
    logits = (y * 2 - 1) * 1.0 + rng.normal(size=y.shape)
    gather = SampleCollector(get_task_type("multilabel"), TaskInfo(("sun", "sea", "snow")))
    gather.collect_batch({"logits": torch.from_numpy(logits)}, (torch.zeros(300, 4), torch.from_numpy(y)))
    report = build_task_report(gather.collect_samples())
    assert report.metrics["f1_macro"] == pytest.approx(sk.f1_score(y, logits > 0, average="macro"))
    assert report.metrics["f1_micro"] == pytest.approx(sk.f1_score(y, logits > 0, average="micro"))
    assert report.metrics["exact_match"] == pytest.approx(sk.accuracy_score(y, logits > 0))
    assert report.details["labels"][0]["label"] == "snow"
    assert table(report.blocks, "labels").faint == [0]  # of few samples
    assert report.details["labels"][0]["auc"]["value"] == pytest.approx(sk.roc_auc_score(y[:, 2], logits[:, 2]))
    shown(report.blocks)


def test_a_rare_label_without_errors_has_an_interval_as_a_class_has() -> None:
    y = np.zeros((60, 2), np.int64)
    y[:4, 0], y[::2, 1] = 1, 1
    logits = np.where(y > 0, 2.0, -2.0)
    logits[5:8, 1] *= -1
    gather = SampleCollector(get_task_type("multilabel"), TaskInfo(("rare", "often")))
    gather.collect_batch({"logits": torch.from_numpy(logits)}, (torch.zeros(60, 4), torch.from_numpy(y)))
    rare = next(
        each for each in build_task_report(gather.collect_samples()).details["labels"] if each["label"] == "rare"
    )
    assert rare["f1"] == {"value": 1, "low": pytest.approx(2 * 0.5101 / 1.5101, abs=1e-3), "high": 1}


@pytest.mark.parametrize("together", [False, True], ids=["labels apart", "labels of a sample together"])
def test_the_interval_of_micro_f1_holds_near_one(together: bool) -> None:
    # Half of the labels are true, 3 % of them are missed; together: both of a sample, or none.
    rng, held = np.random.default_rng(11), 0
    for _ in range(400):
        truth = np.tile(rng.random((120, 1)) < 0.5, (1, 2)) if together else rng.random((120, 2)) < 0.5
        missed = np.tile(rng.random((120, 1)) < 0.03, (1, 2)) if together else rng.random((120, 2)) < 0.03
        found = compute_micro_f1(truth, truth & ~missed)
        held += found.low <= 2 * 0.97 / 1.97 <= found.high
    assert held / 400 >= 0.9


def regressed(noise: float, seed: int = 0, shift: float = 0.0) -> EvaluatedSamples:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(250, 1)) * 10 + 1e4
    reported = y + np.random.default_rng(seed).normal(size=y.shape) * noise + shift
    gather = SampleCollector(get_task_type("regression"), TaskInfo())
    gather.collect_batch({"value": torch.from_numpy(reported - 1e4)}, (torch.zeros(250, 4), torch.from_numpy(y - 1e4)))
    return gather.collect_samples()


def test_numbers() -> None:
    gathered = regressed(2.0, shift=1.0)
    reported = build_task_report(gathered)
    truth, predicted = gathered.columns["truth"], gathered.columns["predicted"]
    assert reported.metrics["mae"] == pytest.approx(sk.mean_absolute_error(truth, predicted))
    assert reported.metrics["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, predicted))
    assert reported.metrics["r2"] == pytest.approx(sk.r2_score(truth, predicted), rel=1e-4)
    assert "predictions are too high" in reported.remarks[0]
    shown(reported.blocks)


def test_masks() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, (12, 8, 8))
    logits = np.moveaxis(np.eye(3)[y], 3, 1) * 2 + rng.normal(size=(12, 3, 8, 8))
    gather = SampleCollector(get_task_type("segmentation"), TaskInfo(("sky", "sea", "sand")), worst=4)
    gather.collect_batch(
        {"logits": torch.from_numpy(logits)}, (torch.rand(12, 3, 8, 8), torch.from_numpy(y.astype(np.uint8)))
    )
    reported = build_task_report(gather.collect_samples())
    predicted = logits.argmax(1).ravel()
    assert reported.metrics["miou"] == pytest.approx(sk.jaccard_score(y.ravel(), predicted, average="macro"))
    assert reported.metrics["pixel_accuracy"] == pytest.approx(sk.accuracy_score(y.ravel(), predicted))
    assert reported.metrics["miou_low"] < reported.metrics["miou"] < reported.metrics["miou_high"]
    assert "data:image/png" in shown(reported.blocks)


def spoken(scale: float) -> EvaluatedSamples:
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(20, 60, 80))
    nats = torch.from_numpy(rng.gamma(4, 0.5, 80)) * tokens * scale
    gather = SampleCollector(get_task_type("language"), TaskInfo())
    x = torch.zeros(80, 5, dtype=torch.long)
    gather.collect_batch({"nats": nats, "tokens": tokens}, {"x": x, "y": x, "key": [f"#{i}" for i in range(80)]})
    return gather.collect_samples()


def test_language() -> None:
    gathered = spoken(1.0)
    reported = build_task_report(gathered)
    nats, tokens = gathered.columns["nats"].sum(), gathered.columns["tokens"].sum()
    assert reported.metrics["bits_per_byte"] == pytest.approx(nats / tokens / np.log(2))
    assert (
        reported.metrics["bits_per_byte_low"]
        < reported.metrics["bits_per_byte"]
        < reported.metrics["bits_per_byte_high"]
    )
    shown(reported.blocks)


def test_a_slice_that_is_worse_is_found_and_small_ones_are_not_believed() -> None:
    gathered = classified(n=900)
    right = gathered.columns["truth"] == gathered.columns["predicted"]
    rng = np.random.default_rng(0)
    camera = np.where(~right & (rng.random(900) < 0.7), "old", np.where(rng.random(900) < 0.3, "old", "new"))
    day = rng.integers(0, 7, 900)
    few = ["yes" if place < 5 else "no" for place in range(900)]
    named: dict[str, Any] = {"camera": camera.tolist(), "day": [str(d) for d in day], "few": few, "one": ["a"] * 900}
    named["width"] = rng.random(900).tolist()
    reported = build_task_report(gathered, named)
    found: list[dict[str, Any]] = reported.details["slices"]
    assert (found[0]["column"], found[0]["value"]) == ("camera", "old")
    assert found[0]["q"] < 0.01
    assert [each["q"] <= 0.05 for each in found if each["column"] == "day"] == [False] * 7
    assert len([each for each in found if each["column"] == "width"]) == 4  # quartiles
    assert {each["column"]: each["small"] for each in found if each["value"] == "yes"} == {"few": True}
    assert not any(each["column"] == "one" for each in found)
    assert reported.metrics["worse_slices"] == 1
    assert "camera old is worse than the rest" in " ".join(reported.remarks)
    shown(reported.blocks)


def test_no_slice_is_found_where_there_is_none() -> None:
    gathered = classified(n=600)
    finds = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        named: dict[str, Any] = {f"c{i}": rng.integers(0, 4, 600).astype(str).tolist() for i in range(5)}
        finds += judge_slices(gathered, named) > 0
    assert finds <= 4  # 5 % of 20, and what chance adds


def of_losses(ours: NDArray[Any], others: NDArray[Any]) -> Mapping[str, Any]:
    """What is said of the slice of the first among both."""
    camera = ["a"] * len(ours) + ["b"] * len(others)
    reported = slices.build_slice_report(
        {"camera": camera}, np.concatenate([ours, others]), share=False, metric_name="squared_error"
    )
    (found,) = [each for each in reported.details["slices"] if each["value"] == "a"]
    return {**found, "worse": reported.metrics["worse_slices"]}


def test_losses_of_one_mean_are_no_worse_slice_whatever_their_shape() -> None:
    finds = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        finds += of_losses(rng.chisquare(1, 300), rng.gamma(4, 0.25, 700))["worse"] > 0
    assert finds <= 6  # 5 % of 40, and what chance adds; a test of ranks finds them all


def test_a_slice_of_larger_mean_losses_is_found() -> None:
    rng = np.random.default_rng(3)
    found = of_losses(rng.chisquare(1, 300) * 1.6, rng.gamma(4, 0.25, 700))
    assert found["worse"] == 1
    assert found["q"] < 0.01


@pytest.mark.parametrize(
    ("ours", "others", "tested"),
    [
        (np.full(40, 0.1), np.full(60, 0.1), True),
        (np.append(np.ones(39), np.inf), np.ones(60), True),
        (np.arange(40.0), np.zeros(3), False),  # three alike would look certain
    ],
)
def test_losses_that_show_nothing(ours: NDArray[Any], others: NDArray[Any], tested: bool) -> None:
    found = of_losses(ours, others)
    assert found["worse"] == 0
    assert found["q"] == 1 if tested else np.isnan(found["q"])


def judge_slices(gathered: EvaluatedSamples, named: Any) -> float:
    good, share, figure = gathered.task_type.select_slice_metric(gathered.columns)
    return slices.build_slice_report(named, good, share=share, metric_name=figure).metrics["worse_slices"]


def test_the_balanced_accuracy_of_a_rare_class_is_covered() -> None:
    rng, held, repeats = np.random.default_rng(3), 0, 60
    for seed in range(repeats):
        truth = (rng.random(100) < 0.05).astype(int)
        predicted = np.where(rng.random(100) < np.where(truth, 0.9, 0.95), truth, 1 - truth)
        found = compute_class_averages(truth, predicted, 2, seed)[0]
        held += found.low <= (0.925 if truth.any() else 0.95) <= found.high
    # A bootstrap's interval does in 53 %.
    assert held / repeats >= 0.85


def test_two_classifiers_of_which_one_is_better() -> None:
    reported = compare_models(classified(noise=1.0), classified(noise=3.0, seed=5), ("one", "other"))
    assert reported.headline.startswith("one is better than other: accuracy ")
    assert "McNemar, exact" in reported.headline
    assert reported.details["against"]["better"] == "one"
    figures = reported.metrics
    assert figures["accuracy_difference_low"] > 0
    assert figures["macro_f1_difference"] > 0 > figures["loss_difference"]
    back = compare_models(classified(noise=3.0, seed=5), classified(noise=1.0), ("other", "one"))
    assert back.headline.startswith("one is better than other")
    assert back.metrics["accuracy_difference"] == -figures["accuracy_difference"]
    shown(reported.blocks)


def test_no_difference_is_printed_to_be_none_shown() -> None:
    same = compare_models(classified(), classified(), ("one", "other"))
    assert same.headline.startswith("no difference is shown between one and other")
    assert same.metrics["accuracy_difference_p"] == same.metrics["macro_f1_difference_p"] == 1
    alike = compare_models(classified(noise=2.0), classified(noise=2.0, seed=9), ("one", "other"))
    assert alike.headline.startswith("no difference is shown")


def rows(gathered: EvaluatedSamples, chosen: NDArray[np.int64]) -> EvaluatedSamples:
    """Some of the samples, in another order."""
    columns = {name: values[chosen] for name, values in gathered.columns.items()}
    return EvaluatedSamples(
        gathered.task_info, [gathered.keys[row] for row in chosen], columns, [], task_type=gathered.task_type
    )


def test_samples_are_paired_by_key_in_whatever_order() -> None:
    first, second = classified(), classified(noise=3.0, seed=5)
    order = np.random.default_rng(0).permutation(len(second))[:350]
    reported, part = compare_models(first, rows(second, order), ("a", "b")), np.sort(order)
    straight = compare_models(rows(first, part), rows(second, part), ("a", "b"))
    assert reported.metrics["accuracy_difference"] == pytest.approx(straight.metrics["accuracy_difference"])
    assert reported.metrics["paired_samples"] == 350
    assert "50 samples are of one of them only" in reported.remarks[-1]


@pytest.mark.parametrize(
    ("first", "second", "measure", "better"),
    [
        (regressed(1.0, 1), regressed(4.0, 2), "rmse", "a is better than b: RMSE"),
        (spoken(1.0), spoken(0.9), "bits_per_byte", "b is better than a: bits per byte"),
    ],
)
def test_other_kinds_are_tested_by_swapping(
    first: EvaluatedSamples, second: EvaluatedSamples, measure: str, better: str
) -> None:
    reported = compare_models(first, second, ("a", "b"))
    assert reported.headline.startswith(better)
    assert "paired permutation" in reported.headline
    assert reported.metrics[f"{measure}_difference_p"] < 0.01


def test_numbers_of_few_samples_are_undecided() -> None:
    few = np.arange(100)
    reported = compare_models(rows(regressed(1.0, 1), few), rows(regressed(4.0, 2), few), ("a", "b"))
    assert reported.headline.startswith("undecided between a and b: 100 samples are too few, at least 150 are needed")
    assert reported.details["against"]["better"] is None
    shown(reported.blocks)


def test_what_can_not_be_compared_is_reported() -> None:
    first = classified()
    with pytest.raises(MLScaleError, match="is a model of classification, b one of regression"):
        compare_models(first, regressed(1.0), ("a", "b"))
    foreign = EvaluatedSamples(
        first.task_info, [f"other {key}" for key in first.keys], first.columns, [], task_type=first.task_type
    )
    with pytest.raises(MLScaleError, match="measured on different samples"):
        compare_models(first, foreign, ("a", "b"))
    turned: dict[str, NDArray[Any]] = {**first.columns, "truth": first.columns["truth"][::-1]}
    with pytest.raises(MLScaleError, match="disagree on what is right"):
        compare_models(first, replace(first, columns=turned), ("a", "b"))
    figures: list[Figure] = []
    shown(figures)
