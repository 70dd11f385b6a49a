"""Data that a model was not trained on: whose classes have the model's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.assembly.trained_model.rebuild import check_encoded_alike
from mlscale.errors import MLScaleError

THREE = {"num_classes": 3, "class_names": ["a", "b", "c"]}
NUMBERS = {"num_classes": 3, "class_names": None}


def check(facts: dict[str, Any] | None, trained: dict[str, Any]) -> None:
    check_encoded_alike(OmegaConf.create({}), Path("nowhere"), facts, trained)


@pytest.mark.parametrize("trained", [THREE, NUMBERS, {"num_classes": None}, {}])
@pytest.mark.parametrize(
    "facts",
    [
        {"num_classes": 3, "class_names": ("a", "b", "c")},
        {"num_classes": 2, "class_names": ("a", "b")},
        {"num_classes": 2, "class_names": None},
        {"num_classes": None},
        None,
    ],
)
def test_classes_with_the_models_numbers_are_taken(facts: dict[str, Any] | None, trained: dict[str, Any]) -> None:
    check(facts, trained)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"num_classes": 2, "class_names": ("b", "c")}, "its classes are b, c; the model's are a, b, c"),
        ({"num_classes": 3, "class_names": ("a", "c", "b")}, "its classes are a, c, b"),
        ({"num_classes": 4, "class_names": None}, "its classes are 4 numbers"),
    ],
)
def test_classes_of_other_numbers_are_refused(facts: dict[str, Any], why: str) -> None:
    with pytest.raises(MLScaleError, match="other classes than the model") as caught:
        check(facts, THREE)
    assert why in caught.value.why
