"""The script that takes every recipe from training to a load-tested server, for three kinds of work."""

from pathlib import Path

import pytest

from mlscale.export.servable import load
from scripts.all_recipes import (
    STEPS,
    RecipeOutcome,
    StepError,
    describe_compression,
    format_table,
    list_recipes,
    run_command,
    take_recipe,
)
from scripts.served_answers import compare_answers
from tests.made_servables import make_servables
from tests.serving import serving


def test_every_recipe_with_a_model_of_its_own_is_taken() -> None:
    wanted = ["gpt", "multilabel", "regression", "resnet", "segmentation", "tabular", "text", "vit"]
    assert list_recipes() == wanted


def test_the_table_shows_how_far_each_came() -> None:
    table = format_table([RecipeOutcome("gpt", {"train": "9 steps"}, "export: exit code 4: no parity")])
    assert table.splitlines()[2:] == [
        "| gpt | 9 steps | - | - | - | - | - | - |",
        "gpt: export: exit code 4: no parity",
    ]


def test_a_drop_is_in_the_unit_that_decides() -> None:
    metrics = {"kept": 1, "speedup": 1.5, "size_ratio": 3.0, "int8_val/iou": 0.5, "iou_drop": 0.01}
    assert describe_compression(metrics) == "kept, 1.50×, 3.0× smaller, iou 0.5, drop +0.0100"
    metrics = {
        "kept": 0,
        "speedup": 0.5,
        "size_ratio": 1.0,
        "int8_val/absolute_error": 40.2,
        "absolute_error_drop": 0.2,
        "absolute_error_relative_drop": 0.005,
    }
    assert describe_compression(metrics).endswith("absolute_error 40.2, drop +0.0050 of fp32")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["resnet", "tabular", "regression"])
def test_a_recipe_is_trained_compressed_served_and_load_tested(recipe: str, tmp_path: Path) -> None:
    outcome = take_recipe(recipe, tmp_path / recipe, 20, [])
    assert outcome.error == ""
    assert list(outcome.steps) == list(STEPS)
    assert outcome.steps["loadtest"].endswith(" 0 failed")


def test_a_command_that_takes_too_long_is_reported_with_what_allows_more(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"not done after 0.01 s: --limit 0.02 allows more"):
        run_command(tmp_path, "recipes", limit_s=0.01)


def test_served_answers_are_compared_with_those_of_predict(tmp_path: Path) -> None:
    first, second = (make_servables(tmp_path / name) for name in ("first", "second"))
    for name in ("penguins", "reviews", "photos"):
        with serving(tmp_path, first[name], "events=null") as server:
            equal, count = compare_answers(server.url, load(first[name]))
            assert equal == count > 10
            # Of other weights: what is refused is refused all the same.
            assert compare_answers(server.url, load(second[name]))[0] < count
