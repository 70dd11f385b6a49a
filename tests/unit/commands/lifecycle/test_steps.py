"""The retraining of a tour, and its comparisons."""

from mlscale.commands.lifecycle.steps import compare_sides
from tests.unit.commands.lifecycle.servables import draw_rows, label_rows, make_classifier


def test_models_are_compared_in_both_directions() -> None:
    truth = (draw_rows()[:, 0] > 0.5).astype(int)
    good, bad = make_classifier(lambda x: x[:, 0] > 0.5), make_classifier(lambda x: x[:, 1] > 0.5)
    samples = label_rows(truth)
    better = compare_sides((bad, samples), (good, samples))
    assert (better.second, better.p_better < 0.001, better.low > 0) == (1, True, True)
    worse = compare_sides((good, samples), (good, label_rows(1 - truth)))
    assert (worse.first, worse.second, worse.p_better > 0.999, worse.low < 0) == (1, 0, True, True)
