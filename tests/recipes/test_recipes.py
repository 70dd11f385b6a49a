"""Every recipe trains a step; every option of every group composes; a recipe selects, it sets nothing of its own."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from mlscale import commands
from mlscale.assembly.ready import compose_from_overrides
from mlscale.cli import main
from mlscale.config.schema.roots import BASE_GROUPS
from tests.page_elements import Elements

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(ROOT.glob("recipes/recipe/*.yaml"))
# What base/run.yaml holds: no option can own it.
SETTINGS = {"name", "seed", "metric", "mode", "tags", "notes", "param_groups", "layer_decay"}
# These options need data of the user's own.
NEEDED = {
    "data=dali": ["data.train=a.tar", "data.val=b.tar"],
    "data=webdataset": ["data.train=a.tar", "data.val=b.tar"],
    "data=imagefolder": ["data.root=images"],
    "data=tfrecord": ["data.train=a.tfrecord", "data.val=b.tfrecord"],
    "data=image_table": ["data.train=a.csv"],
    "data=table": ["data.train=a.csv", "data.target=b"],
    "data=text_files": ["data.train=a.txt"],
    "data=text_table": ["data.train=a.csv"],
    "data=tokens": ["data.root=tokens"],
    # The recipe's schedule takes the optimizer's learning rate, and its task needs an optimizer.
    "optimizer=none": ["scheduler=none", "task={_target_:pytorch_lightning.LightningModule}"],
    "data=none": ["data={_target_:pytorch_lightning.LightningDataModule}"],
}
OPTIONS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted([*ROOT.glob("conf/*/*.yaml"), *ROOT.glob("recipes/*/*.yaml")])
    if path.parent.name in BASE_GROUPS
]
# To compose takes most of the time. Data, model and task must fit each other, so each is tried on its own; of the other
# groups each composition has an option of every group that has as many.
FITTING = ("data", "model", "task")
OTHERS = [[o for o in OPTIONS if o.startswith(f"{group}=")] for group in BASE_GROUPS if group not in FITTING]
SELECTIONS: list[tuple[str, ...]] = [(option,) for option in OPTIONS if option.split("=")[0] in FITTING]
SELECTIONS += [
    tuple(group[number] for group in OTHERS if number < len(group)) for number in range(max(map(len, OTHERS)))
]


def test_all_were_found() -> None:
    assert [path.stem for path in RECIPES] == [
        "finetune", "gpt", "multilabel", "regression", "resnet", "segmentation", "tabular", "text", "vit",
    ]  # fmt: skip
    assert len(OPTIONS) == 117
    assert {option.split("=")[0] for option in OPTIONS} == set(BASE_GROUPS)
    assert sorted(option for options in SELECTIONS for option in options) == sorted(OPTIONS)


@pytest.mark.parametrize(
    "recipe", [pytest.param(path.stem, marks=pytest.mark.slow if path.stem == "gpt" else ()) for path in RECIPES]
)
def test_a_recipe_trains_a_step(folder: Path, recipe: str) -> None:
    result = commands.run_command(
        "train", [f"recipe={recipe}", "debug=fast", "logger=csv", "trainer.accelerator=cpu", "snapshot=false"]
    )
    assert result.ok
    assert result.metrics["steps"] == 1
    assert Path(result.artifacts["checkpoint"]).is_file()
    page = Path(result.artifacts["page"]).read_text()
    assert len(page) <= 500_000
    elements = Elements(page)
    assert not re.search(r"https?://(?!www.w3.org/2000/svg)", page)
    assert all(str(image["src"]).startswith("data:image/") and image["alt"] for image in elements.all("img"))
    assert sum(point.get("class") == "hit" for point in elements.all("circle")) >= 4  # values on hover
    text = elements.text()
    run = Path(result.artifacts["run"]).name.rpartition("-")[2]
    for part in ("Learning rate", "Throughput", "Peak memory", "Inputs", "Predictions", "Configuration", run):
        assert part in text
    assert "can't be shown" not in text
    assert "None are shown" not in text


@pytest.mark.parametrize("model", [("model=resnet18",), ("model=timm", "model.model_name=test_resnet")], ids=str)
def test_fine_tuning_takes_models_of_other_libraries(
    folder: Path, model: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    if "model=timm" in model:
        pytest.importorskip("timm")
    for number in range(16):
        path = folder / f"photos/{number % 2}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number * 9, 255 * (number % 2), 7)).save(path)
    data = ("data=imagefolder", "data.root=photos", "data.image_size=32", "data.batch_size=4", "augment=crop")
    words = ["recipe=finetune", *data, *model, "debug=fast", "trainer.accelerator=cpu", "snapshot=false"]
    assert commands.run_command("train", words).metrics["steps"] == 1
    (frozen,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frozen ")]
    assert "until epoch 1" in frozen  # all but the head
    weights = torch.load(next(folder.glob("runs/*/*/checkpoints/best.ckpt")), weights_only=True)
    rates = [group["initial_lr"] for group in weights["optimizer_states"][0]["param_groups"]]
    assert min(rates) < max(rates) == 0.001  # lower layers are slower


@pytest.mark.parametrize("options", SELECTIONS, ids=",".join)
def test_an_option_composes_and_passes_the_check(capsys: pytest.CaptureFixture[str], options: tuple[str, ...]) -> None:
    needed = [word for option in options for word in NEEDED.get(option, []) if word not in options]
    assert main(["config", "check", "+recipe=resnet", *options, *needed]) == 0, capsys.readouterr().err


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
    composed = compose_from_overrides("train", [f"recipe={recipe}", "optimizer=adamw"]).optimizer
    assert set(composed) == set(alone)
    assert composed.lr == alone["lr"]
