"""The metric of sentences and plots: its name, its unit and its direction, for every task type."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.commands.lifecycle.key_metric import describe_metric
from mlscale.commands.lifecycle.metric_change import compare_models, compare_sides, measure_samples
from mlscale.export.servable import Servable
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import TargetColumn
from tests.unit.commands.lifecycle.shifts.servables import draw_rows, label_rows, make_classifier, make_regressor

NONE = np.zeros(0, np.int64)


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        ("classification", "val/accuracy", "accuracy 50.00%"),
        ("multilabel", "val/map", "map 50.00%"),
        ("multilabel", "exact_match", "exact match 50.00%"),
        ("segmentation", "val/miou", "mean IoU 50.00%"),
        ("segmentation", "iou", "iou 50.00%"),
        ("regression", "val/rmse", "RMSE 0.5 kg"),
        ("regression", "absolute_error", "absolute error 0.5 kg"),
        ("language", "val/bits_per_byte", "bits per byte 0.5"),
        ("language", "nats_per_token", "nats per token 0.5"),
        ("classification", "val/loss", "loss 0.5"),
    ],
)
def test_a_reported_metric_has_its_unit(kind: str, name: str, shown: str) -> None:
    metric = describe_metric(name, get_task_type(kind), [TargetColumn("mass", "kg")])
    assert metric.describe_value(0.5) == shown


def test_targets_of_several_units_have_none() -> None:
    targets = [TargetColumn("mass", "kg"), TargetColumn("size", "m")]
    assert describe_metric("val/rmse", get_task_type("regression"), targets).describe_value(0.5) == "RMSE 0.5"


def test_shares_are_shown_in_percent_of_a_whole() -> None:
    truth = (draw_rows()[:, 0] > 0.5).astype(int)
    metric, value = measure_samples(make_classifier(lambda x: x[:, 0] > 0.5), label_rows(truth))
    plot = metric.plot_values("of samples", [("before", value)])
    assert (plot.title, plot.rows, plot.unit, plot.whole) == ("Accuracy of samples", [("before", 100.0)], "%", 100.0)


def test_errors_are_shown_in_the_unit_of_the_target_with_their_direction() -> None:
    truth = draw_rows()[:, :1]
    metric, value = measure_samples(make_regressor(lambda x: x[:, 0] + 2), label_rows(truth))
    assert value == pytest.approx(2, abs=1e-6)
    plot = metric.plot_values("of samples", [("before", 2.0)])
    assert (plot.title, plot.unit, plot.whole) == ("RMSE of samples (lower is better)", "kg", None)


def test_models_are_compared_in_both_directions() -> None:
    truth = (draw_rows()[:, 0] > 0.5).astype(int)
    good, bad = make_classifier(lambda x: x[:, 0] > 0.5), make_classifier(lambda x: x[:, 1] > 0.5)
    samples = label_rows(truth)
    better = compare_models(bad, good, samples, alpha=0.05, without=NONE)
    assert (better.second, better.p_better < 0.001, better.p_worse > 0.999, better.low > 0) == (1, True, True, True)
    worse = compare_sides((good, samples), (good, label_rows(1 - truth)), alpha=0.05)
    assert (worse.first, worse.second, worse.p_worse < 0.001, worse.low < 0) == (1, 0, True, True)


def test_classes_can_be_left_out_of_a_comparison() -> None:
    truth = np.arange(400) % 3
    swapped = np.array([1, 0, 2])
    lookup = {tuple(row): label for row, label in zip(draw_rows().tolist(), truth.tolist(), strict=True)}

    def predict_by(classes: NDArray[Any]) -> Servable:
        return make_classifier(lambda x: classes[[lookup[tuple(row)] for row in x.tolist()]], classes=3)

    first, second = predict_by(np.arange(3)), predict_by(swapped)
    samples = label_rows(truth)
    assert compare_models(first, second, samples, alpha=0.05, without=NONE).second == pytest.approx(1 / 3, abs=0.01)
    assert compare_models(first, second, samples, alpha=0.05, without=np.array([0, 1])).second == 1
