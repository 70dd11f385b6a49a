"""ROC and precision–recall: areas as scikit-learn has them, intervals that hold."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mlscale.stats.ranking import ranking


@pytest.mark.parametrize("digits", [2, 12])
def test_areas(digits: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(800) < 0.3
    scores = np.round(rng.normal(size=800) + truth, digits)  # with two digits, many are tied
    found = ranking(scores, truth)
    assert found is not None
    assert found.auc.value == pytest.approx(roc_auc_score(truth, scores))
    assert found.average_precision.value == pytest.approx(average_precision_score(truth, scores))
    assert found.auc.low < found.auc.value < found.auc.high
    told = scores >= found.best_threshold
    hits = (told & truth).sum()
    assert found.best_f1 == pytest.approx(2 * hits / (told.sum() + truth.sum()))


def test_the_true_area_lies_within() -> None:
    true, inside = 0.7602499389065233, 0  # of two normal distributions, one standard deviation apart
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth = rng.random(300) < 0.5
        found = ranking(rng.normal(size=300) + truth, truth, draws=300)
        assert found is not None
        inside += found.auc.low <= true <= found.auc.high
    assert 88 <= inside <= 99


def test_no_curve_of_one_class() -> None:
    assert ranking(np.arange(4.0), np.ones(4)) is None
    assert ranking(np.arange(4.0), np.zeros(4)) is None
