"""A servable without its run states the recipe and the kind of data that measure it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from mlscale import commands
from mlscale.assembly.ready import resolve_base_config
from mlscale.assembly.trained_model.servable_settings import ServableTask, choose_typed_split, read_servable_task
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.errors import MLScaleError

EXAMPLE = Path(__file__).parents[3] / "contract" / "examples" / "servable-2"


@pytest.fixture
def servable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stored regression of a table, in a folder without runs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLE, tmp_path / "s")
    return tmp_path / "s"


def test_the_task_is_read_from_the_document(servable: Path) -> None:
    assert read_servable_task(servable) == ServableTask("regression", "table", ("body_mass_g",))
    (servable / "servable.yaml").write_text("[")
    assert read_servable_task(servable) is None


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["data.test=t.csv"], ("t.csv", "t.csv", "t.csv", "test", "body_mass_g")),
        (["data.val=v.csv"], ("v.csv", "v.csv", None, "val", "body_mass_g")),
        (["data.train=a.csv", "data.target=x"], ("a.csv", None, None, "val", "x")),
        (["data=table", "data.train=a.csv", "data.target=x"], ("a.csv", None, None, "val", "x")),
    ],
)
def test_only_the_data_is_to_be_named(servable: Path, typed: list[str], expected: tuple[str | None, ...]) -> None:
    request = resolve_base_config(parse_command_line("evaluate", [str(servable), *typed]))
    config = compose_config(request)
    data = config.data
    assert (data.train, data.val, data.test, config.split, data.target) == expected
    assert "Regression" in config.task._target_


def test_the_option_that_would_be_chosen_may_be_typed(servable: Path) -> None:
    """It gets the same settings: of images of the first format their size, without which they do not fit."""
    shutil.copytree(EXAMPLE.parent / "servable-1", servable.parent / "first")
    words = ["first", "data=imagefolder", "data.root=photos"]
    config = compose_config(resolve_base_config(parse_command_line("evaluate", words)))
    assert (config.data.image_size, config.data.last) == (8, "pad")


@pytest.mark.parametrize(
    ("typed", "splits"),
    [
        (["data.test=t.csv"], ["split=test"]),
        (["data.test=t.csv", "split=val"], ["split=val"]),
        (["data.test=t.csv", "data.val=v.csv"], []),
        (["data.val=v.csv"], []),
    ],
)
def test_test_data_that_is_typed_is_what_is_measured(typed: list[str], splits: list[str]) -> None:
    """Of a model with its run, too: it would be measured on the validation data of its training."""
    request = choose_typed_split(parse_command_line("evaluate", ["last", *typed]))
    assert [word.lstrip("+") for word in request.overrides if "split=" in word] == splits


@pytest.mark.parametrize(
    ("task", "kind", "recipe", "shown"),
    [
        ("classification", "table", "tabular", "data.test=<test.csv> data.target=<column>"),
        ("classification", "text", "text", "data.text=<column>"),
        ("language", "document", "gpt", "data.val=<file.txt>"),
        ("classification", "image", "resnet", "data.root="),
        ("multilabel", "image", "multilabel", "data.val=<folder of shards>"),
        ("segmentation", "image", "segmentation", "data.val=<folder of shards>"),
    ],
)
def test_every_built_in_task_has_a_recipe_and_a_command(task: str, kind: str, recipe: str, shown: str) -> None:
    stated = ServableTask(task, kind)
    assert stated.recipe == recipe
    assert shown in stated.suggest_command("s")


def test_without_data_the_error_has_the_command(servable: Path) -> None:
    with pytest.raises(MLScaleError, match="the data of this servable is not known") as caught:
        commands.run_command("evaluate", [f"ref={servable}"])
    assert caught.value.fix == f"mlscale evaluate {servable} data.test=<test.csv> data.target=body_mass_g"


def test_a_servable_of_the_first_format_has_images(servable: Path) -> None:
    first = yaml.safe_load((EXAMPLE.parent / "servable-1" / "servable.yaml").read_text())
    assert ServableTask.parse_document(first).recipe == "resnet"
