"""The retraining of a tour, and its comparisons."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.commands.lifecycle.steps import Lifecycle, compare_sides, read_suggested_classes
from mlscale.export.servable import Servable
from mlscale.report import Result
from mlscale.retrain.gate.gate_limits import format_name_list
from tests.unit.commands.lifecycle.servables import draw_rows, label_rows, make_classifier


def test_a_cycle_learns_from_what_was_sent_after_the_change_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    typed: list[str] = []

    def keep_overrides(command: str, words: Any) -> Result:
        typed.extend(words)
        return Result(command, True, "", {})

    monkeypatch.setattr("mlscale.commands.run_command", keep_overrides)
    cfg: Any = SimpleNamespace(lifecycle=SimpleNamespace(retrain_passes=3))
    folder: Any = SimpleNamespace(path=Path("tour"), write_result=lambda *_: None)
    lifecycle: Any = Lifecycle(cfg, folder, None)  # type: ignore[arg-type]
    lifecycle.first = SimpleNamespace(name="x")
    lifecycle.shifted = lifecycle.held_out = label_rows(np.zeros(400, int))
    lifecycle._run_cycle("force=true")
    # Validation samples, which were sent before, need no label where the task has none.
    assert {"window.max_samples=400", "gate.max_drop=0.05", "ref=x@champion", "force=true"} <= set(typed)


def test_models_are_compared_in_both_directions() -> None:
    truth = (draw_rows()[:, 0] > 0.5).astype(int)
    good, bad = make_classifier(lambda x: x[:, 0] > 0.5), make_classifier(lambda x: x[:, 1] > 0.5)
    samples = label_rows(truth)
    better = compare_sides((bad, samples), (good, samples))
    assert (better.second, better.p_better < 0.001, better.low > 0) == (1, True, True)
    worse = compare_sides((good, samples), (good, label_rows(1 - truth)))
    assert (worse.first, worse.second, worse.p_better > 0.999, worse.low < 0) == (1, 0, True, True)


def test_classes_can_be_left_out_of_a_comparison() -> None:
    truth = np.arange(400) % 3
    swapped = np.array([1, 0, 2])
    lookup = {tuple(row): label for row, label in zip(draw_rows().tolist(), truth.tolist(), strict=True)}

    def predict_by(classes: NDArray[Any]) -> Servable:
        return make_classifier(lambda x: classes[[lookup[tuple(row)] for row in x.tolist()]], classes=3)

    first, second = predict_by(np.arange(3)), predict_by(swapped)
    samples = label_rows(truth)
    assert compare_sides((first, samples), (second, samples)).second == pytest.approx(1 / 3, abs=0.01)
    assert compare_sides((first, samples), (second, samples), [0, 1]).second == 1


@pytest.mark.parametrize("names", [("0", "3"), ("a", "b c"), ("true", "x-1"), ("über", "no")])
def test_the_classes_that_the_gate_suggests_are_read_from_its_sentence(names: tuple[str, ...]) -> None:
    sentence = f"rejected: 0 of 3, then gate.relabelled={format_name_list(names)}. Held-out accuracy [1, 2]"
    assert read_suggested_classes(sentence) == list(names)
    assert read_suggested_classes("rejected: it is not surely better") == []
