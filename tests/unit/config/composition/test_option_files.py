"""A config file in the wrong place, and the file that selects an option which does not exist."""

from __future__ import annotations

import subprocess
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


@pytest.mark.parametrize(
    "file",
    ["mine.yaml", "mine.yml", "conf/mine.yaml", "conf/optimizer/mine.yml", "optimizer/mine.yaml", "config/o/mine.yaml"],
)  # fmt: skip
def test_a_file_in_the_wrong_place_is_named_and_moved_by_the_fix(file: str) -> None:
    write(file, OPTIMIZER)
    found = problem("optimizer=mine")
    assert found.what == "unknown option 'mine' of the group 'optimizer'"
    assert found.why == f"{file} is not read: an option of this group is in conf/optimizer/mine.yaml"
    subprocess.run(found.fix, shell=True, check=True)
    assert compose_config(parse_command_line("train", ["optimizer=mine"])).optimizer.lr == 0.1


@pytest.mark.parametrize("file", ["mine.yaml", "recipes/mine.yaml", "conf/mine.yml", "mine.yml"])
def test_a_recipe_in_the_wrong_place(file: str) -> None:
    write(file, "# @package _global_\nname: here\n")
    subprocess.run(problem("recipe=mine").fix, shell=True, check=True)
    assert compose_config(parse_command_line("train", ["recipe=mine"])).name == "here"


@pytest.mark.parametrize("typed", ["optimizer=mine.yaml", "optimizer=./mine.yaml", "optimizer=elsewhere/mine.yaml"])
def test_a_path_in_place_of_a_name(typed: str) -> None:
    write(typed.partition("=")[2], OPTIMIZER)
    subprocess.run(problem(typed).fix, shell=True, check=True)
    assert compose_config(parse_command_line("train", ["optimizer=mine"])).optimizer.lr == 0.1


def test_a_file_that_is_read_is_reported_as_what() -> None:
    write("conf/optimizer/mine.yaml", OPTIMIZER)
    for typed in ("optimizer=conf/optimizer/mine.yaml", "model=mine"):
        assert problem(typed).fix == "optimizer=mine"


def test_of_a_file_that_belongs_to_another_group_nothing_is_printed() -> None:
    write("conf/optimizer/mine.yml", OPTIMIZER)
    assert "mine.yml" not in str(problem("model=mine"))
    assert "conf/optimizer/mine.yml is not read: the file of an option ends in .yaml" in find_roots().list_shadowed()


@pytest.mark.parametrize(
    ("entries", "line", "fix"),
    [
        (["override /optimizer: sdg"], 3, "write 'sgd' in place of 'sdg'"),
        (["override /model: mlp", "override /callbacks: [default, emma]"], 4, "write 'ema' in place of 'emma'"),
        (["override /model: resnet50"], 3,
         "take 'resnet50' out of the defaults, and type model=resnet18 model._target_=torchvision.models.resnet50"),
        (["resnt"], 3, "write 'resnet' in place of 'resnt'"),
        (["override /logger: comet"], 3, ""),
        (["/optimizer: adamw"], 3, "write `- override /optimizer: adamw`"),
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
    assert (found.where, found.fix) == (
        "recipes/recipe/mine.yaml: defaults",
        "write '/optimizer' in place of 'optmizer'",
    )
