"""The change that is chosen: the mildest whose effect is clear, in the column that the model depends on."""

import numpy as np
import pytest

from mlscale.commands.lifecycle.shifts.fit_shift import fit_shift
from mlscale.errors import Exit, MLScaleError
from tests.unit.commands.lifecycle.shifts.servables import draw_rows, label_rows, make_classifier, make_regressor


def is_b_large(x: np.ndarray) -> np.ndarray:
    return (x[:, 1] > 0.5).astype(int)


@pytest.mark.parametrize(("name", "found"), [("auto", "the unit of b"), ("unit", "the unit of b"), ("stuck", "of b")])
def test_the_column_is_the_one_that_the_model_depends_on(name: str, found: str) -> None:
    shift = fit_shift(name, make_classifier(is_b_large), label_rows(is_b_large(draw_rows())))
    assert found in shift.description
    assert shift.name == ("unit" if name == "auto" else name)


def test_the_mildest_change_that_is_clear_is_taken() -> None:
    def is_far(x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 5).astype(int)

    shift = fit_shift("unit", make_classifier(is_far), label_rows(np.zeros(400, int)))
    # °F adds 32, and all are over 5 then.
    assert "°F" in shift.description

    def is_very_far(x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 100).astype(int)

    assert "1,000" in fit_shift("unit", make_classifier(is_very_far), label_rows(np.zeros(400, int))).description


def test_a_shift_without_an_effect_is_refused_with_those_that_may_have_one() -> None:
    servable, samples = make_classifier(lambda x: np.zeros(len(x))), label_rows(np.zeros(400, int))
    with pytest.raises(MLScaleError, match="'stuck' does not make the model measurably worse") as caught:
        fit_shift("stuck", servable, samples)
    assert caught.value.exit == Exit.GATE
    assert caught.value.fix == "lifecycle.shift=unit\nlifecycle.shift=concept"


def test_errors_are_compared_with_their_mean() -> None:
    truth = draw_rows()[:, 1] * 10 + 100
    servable = make_regressor(lambda x: x[:, 1] * 10 + 99)
    assert "the unit of b" in fit_shift("auto", servable, label_rows(truth[:, None])).description
    assert "mass is × 1.5" in fit_shift("concept", servable, label_rows(truth[:, None])).description


def test_swapped_classes_are_those_of_the_samples() -> None:
    truth = np.array([0, 1, 2, 2, 1, 1, 2, 3] * 50)
    lookup = {tuple(row): label for row, label in zip(draw_rows().tolist(), truth.tolist(), strict=True)}
    servable = make_classifier(lambda x: np.array([lookup[tuple(row)] for row in x.tolist()]), classes=4)
    shift = fit_shift("concept", servable, label_rows(truth))
    assert shift.relabelled == ("b", "c")
