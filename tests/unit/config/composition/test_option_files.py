"""The file that selects an option which does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.schema.roots import find_roots
from mlscale.errors import MLScaleError

OPTIMIZER = "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n"


def problem(*words: str) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        compose_config(parse_command_line("train", words))
    return caught.value


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(file: str, text: str) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)


def test_a_path_in_place_of_a_name() -> None:
    write("conf/optimizer/mine.yaml", OPTIMIZER)
    found = problem("optimizer=conf/optimizer/mine.yaml")
    assert (found.fix, found.why) == ("optimizer=mine", "an option is a name: that of conf/optimizer/mine.yaml")


def test_a_file_that_is_not_read() -> None:
    write("conf/optimizer/mine.yml", OPTIMIZER)
    assert "conf/optimizer/mine.yml is not read: the file of an option ends in .yaml" in find_roots().list_shadowed()


@pytest.mark.parametrize(
    ("entries", "line", "fix"),
    [
        (["override /optimizer: sdg"], 3, "write 'sgd' in place of 'sdg'"),
        (["override /model: mlp", "override /callbacks: [default, emma]"], 4, "write 'ema' in place of 'emma'"),
        (["override /model: resnet50"], 3,
         "take 'resnet50' out, and type model._target_=torchvision.models.resnet50"),
        (["resnt"], 3, "write 'resnet' in place of 'resnt'"),
        (["override /logger: comet"], 3, ""),
    ],
)  # fmt: skip
def test_the_recipe_is_blamed_for_what_it_selects(entries: list[str], line: int, fix: str) -> None:
    write("recipes/recipe/mine.yaml", "# @package _global_\ndefaults:\n" + "".join(f"  - {item}\n" for item in entries))
    write("recipes/recipe/outer.yaml", "# @package _global_\ndefaults:\n  - mine\n")
    for recipe in ("mine", "outer"):
        found = problem(f"recipe={recipe}")
        assert found.where == f"recipes/recipe/mine.yaml: line {line}"
        assert found.fix == fix


def test_a_group_that_does_not_exist() -> None:
    write("recipes/recipe/mine.yaml", "# @package _global_\ndefaults:\n  - override /optmizer: sgd\n")
    found = problem("recipe=mine")
    assert found.where == "recipes/recipe/mine.yaml: defaults"
    assert found.what == "recipe=mine sets the group 'optmizer', which this command does not have"
