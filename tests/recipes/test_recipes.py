"""Every recipe trains a step; every option of every group composes; a recipe selects, it sets nothing of its own."""

from pathlib import Path

import pytest
import yaml

from mlscale import verbs
from mlscale.cli import main
from mlscale.config.roots import BASE_GROUPS
from mlscale.ready import ready

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(ROOT.glob("recipes/recipe/*.yaml"))
SETTINGS = {"name", "seed", "metric", "mode", "tags", "notes"}  # what base/run.yaml holds: no option can own it
# These options need data of the user's own.
NEEDED = {
    "data=webdataset": ["data.train=a.tar", "data.val=b.tar"],
    "data=imagefolder": ["data.root=images"],
    "data=table": ["data.train=a.csv", "data.target=b"],
    "data=text_files": ["data.train=a.txt"],
    "data=text_table": ["data.train=a.csv"],
    "optimizer=none": ["scheduler=none"],  # the recipe's schedule takes the optimizer's learning rate
    "data=none": ["data={_target_:pytorch_lightning.LightningDataModule}"],
}
OPTIONS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted([*ROOT.glob("conf/*/*.yaml"), *ROOT.glob("recipes/*/*.yaml")])
    if path.parent.name in BASE_GROUPS
]


def test_all_were_found() -> None:
    assert [path.stem for path in RECIPES] == [
        "gpt", "multilabel", "regression", "resnet", "segmentation", "tabular", "text", "vit",
    ]  # fmt: skip
    assert len(OPTIONS) == 103
    assert {option.split("=")[0] for option in OPTIONS} == set(BASE_GROUPS)


@pytest.mark.parametrize("recipe", [path.stem for path in RECIPES])
def test_a_recipe_trains_a_step(folder: Path, recipe: str) -> None:
    result = verbs.call("train", [f"recipe={recipe}", "debug=fast", "trainer.accelerator=cpu", "snapshot=false"])
    assert result.ok
    assert result.metrics["steps"] == 1
    assert Path(result.artifacts["checkpoint"]).is_file()


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_composes_and_passes_the_check(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["config", "check", "+recipe=resnet", option, *NEEDED.get(option, [])]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_only_selects(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# @package _global_\n")
    assert f"\n# python -m mlscale +recipe={path.stem}" in text
    content = yaml.safe_load(text)
    chosen = [item for item in content.pop("defaults") if item != "_self_"]
    assert chosen
    assert all(key.startswith("override /") for item in chosen for key in item)
    assert content.keys() <= SETTINGS


@pytest.mark.parametrize("recipe", [path.stem for path in RECIPES])
def test_another_option_keeps_nothing_of_the_recipe(recipe: str) -> None:
    alone = yaml.safe_load((ROOT / "conf/optimizer/adamw.yaml").read_text())
    assert set(ready("train", [f"recipe={recipe}", "optimizer=adamw"]).optimizer) == set(alone)
    assert ready("train", [f"recipe={recipe}", "optimizer=adamw"]).optimizer.lr == alone["lr"]
