"""Every suggestion of the table, in recipes of images, tables, language and text: it passes the check, and is for the
recipe's data and task.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from mlscale.config.checks.check import check_config
from mlscale.config.checks.checked_config import collect_names
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.names.foreign_names import Alias, load_foreign_names
from mlscale.config.names.suggest import is_override
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.job_facts import DATA_KINDS, MODEL_USES, TASK_METRICS
from mlscale.config.schema.roots import find_roots
from mlscale.config.suggestions.alias_meanings import render_alias
from mlscale.config.suggestions.config_names import Advice, Names
from mlscale.config.suggestions.unknown_keys import suggest_key
from mlscale.errors import MLScaleError

RECIPES = {"resnet": "images", "tabular": "tables", "gpt": "texts", "text": "texts"}
TASKS = {"resnet": "classification", "tabular": "classification", "text": "classification", "gpt": "language"}
SAMPLES = (2, 0.5, "some", "torch.nn.Identity", True, ["a"], [1], {"a": 1}, None, "accuracy")


@cache
def groups() -> Mapping[str, Sequence[str]]:
    return find_roots().groups  # lists folders each time


@cache
def composed(recipe: str) -> DictConfig:
    return compose_config(parse_command_line("train", [f"recipe={recipe}"]))


@cache
def names(recipe: str) -> Names:
    return collect_names(composed(recipe), groups=groups())


@cache
def suggestions(recipe: str) -> dict[str, tuple[str, object, Advice]]:
    """Every suggestion that the table gives in a recipe by its fix, with a name and a value that it is given for."""
    found: dict[str, tuple[str, object, Advice]] = {}
    table, entries = load_foreign_names(), set()
    for name, entry in table.keys.items():
        if id(entry) in entries:  # another name of the same meaning
            continue
        entries.add(id(entry))
        for value in (*entry.values, *SAMPLES):
            typed = 0.5 if value in ("{}", "[]", "<1") else yaml.safe_load(value) if isinstance(value, str) else value
            advice = render_alias(entry, table_spelling(name), typed, names(recipe))
            if advice is not None:
                found.setdefault(advice.fix, (name, typed, advice))
            if value in SAMPLES and advice is not None and advice.exact:
                break  # one value that fits
    for group, entry in table.options.items():
        for value in entry.values:
            if advice := render_alias(Alias(group=group), group, value, names(recipe)):
                found.setdefault(advice.fix, (group, value, advice))
    return found


def table_spelling(name: str) -> str:
    return load_foreign_names().spelled.get(name, name)


@cache
def option_node(group: str, option: str) -> tuple[str, Any]:
    shipped = next(item for item in get_shipped_fields().list_group_options(group) if item.name == option)
    files = [root.path / group / f"{option}.yaml" for root in find_roots().roots]
    return shipped.package, OmegaConf.load(next(file for file in files if Path(file).is_file()))


def apply(cfg: DictConfig, words: list[str]) -> None:
    """Do what the words of a fix do on the command line, without composing all again; options first, as Hydra does."""
    for word in sorted(words, key=lambda word: word.partition("=")[0] not in groups()):
        key, _, right = word.partition("=")
        if key.startswith("~"):
            OmegaConf.update(cfg, key[1:], None)
        elif key in groups():
            for option in right.strip("[]").split(","):
                package, node = option_node(key, option)
                if "defaults" not in node:
                    OmegaConf.update(cfg, package, node, force_add=True, merge=False) if package else cfg.merge_with(
                        node
                    )
        else:
            OmegaConf.update(cfg, key, yaml.safe_load(right), force_add=True)


def check_words(recipe: str, words: list[str]) -> list[str]:
    cfg = copy.deepcopy(composed(recipe))
    apply(cfg, words)
    keys = {word.partition("=")[0] for word in words}

    def origin(path: str) -> str:  # a key that a file sets and a typed class does not take is left out
        return "command line: it" if path in keys else "recipes"

    return [str(problem) for problem in check_config(cfg, groups=groups(), origin=origin)]


def packed(fixes: list[str]) -> Iterator[list[str]]:
    """Fixes that say nothing about the same group, together: a check of each alone takes minutes."""
    packs: list[tuple[set[str], list[str]]] = []
    for fix in fixes:
        topics = {topic(word) for word in shlex.split(fix)}
        pack = next((pack for pack in packs if not pack[0] & topics), None)
        if pack is None:
            packs.append(pack := (set(), []))
        pack[0].update(topics)
        pack[1].append(fix)
    for _, members in packs:
        yield members


@cache
def topic(word: str) -> str:
    """What a word is about: the key, or the group where options take the place of each other."""
    key = word.partition("=")[0].lstrip("~")
    head = key.partition(".")[0]
    return head if head in groups() and head != "trainer" else key


@pytest.mark.parametrize(
    "recipe", ["resnet", "gpt", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tabular", "text"))]
)
def test_every_suggestion_passes_the_check_of_the_recipe(recipe: str) -> None:
    fixes = [fix for fix in suggestions(recipe) if is_override(fix)]
    assert len(fixes) > 120
    wrong = []
    for members in packed(fixes):
        if problems := check_words(recipe, [word for fix in members for word in shlex.split(fix)]):
            wrong += problems
    assert wrong == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_suggestion_is_for_the_data_and_the_task(recipe: str) -> None:
    kind, task = RECIPES[recipe], TASKS.get(recipe, "segmentation")
    for fix, (name, value, advice) in suggestions(recipe).items():
        for word in shlex.split(fix) if is_override(fix) else ():
            key, _, right = word.partition("=")
            printed = (name, value, advice)
            if key == "data":
                assert DATA_KINDS[right] == kind, printed
            elif key == "task":
                assert right == task, printed
            elif key == "model":
                assert kind in MODEL_USES[right][0], printed
                assert task in MODEL_USES[right][1], printed
            elif key.partition(".")[0] == "augment" and word != "augment=none":
                assert kind == "images", printed
                assert task == "classification" or not {"mixup", "cutmix"} & {key.partition(".")[2], right}, printed
            elif key == "metric":
                assert right.startswith("val/") or right == value, printed
                assert right == value or right.removeprefix("val/") in TASK_METRICS[task], printed
            assert names(recipe).values(key) not in ("${derived.num_classes}", "${derived.channels}"), printed


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_option_is_replaced_only_where_the_one_in_use_lacks_the_key(recipe: str) -> None:
    for fix, (name, value, advice) in suggestions(recipe).items():
        words = [word.partition("=") for word in shlex.split(fix)] if is_override(fix) else []
        for group, _, option in words:
            if group not in ("optimizer", "scheduler", "model", "data", "augment", "task"):
                continue
            if "optimizer.fused" not in fix:  # adamw_torch_fused is the optimizer that was asked for by name
                settings = {key for key, _, _ in words if key.startswith(f"{group}.") and not key.endswith("_target_")}
                # The root of a bundled data set is where it is kept, not a folder of the user's.
                present = bool(settings - {"data.root"}) and settings <= set(names(recipe).paths)
                assert not present or "takes the place" not in advice.why, (name, value, advice)
            target = names(recipe).values(f"{group}._target_")
            new = next(item.target for item in get_shipped_fields().list_group_options(group) if item.name == option)
            if target and new and target != new:
                assert f"takes the place of {target}" in advice.why, (name, value, advice)


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_that_is_printed_is_a_placeholder(recipe: str) -> None:
    for fix, (name, value, _) in suggestions(recipe).items():
        assert not set("<>") & set(fix), (name, value, fix)


def test_each_reason_is_about_what_the_recipe_has() -> None:
    for recipe in RECIPES:
        for fix, (name, value, advice) in suggestions(recipe).items():
            if is_override(fix):
                for other in ("model=", "ResNet", "the mlp"):
                    assert other not in advice.why or "takes the place" in advice.why, (recipe, name, value, advice)


def test_every_option_of_data_and_model_has_its_kind() -> None:
    for group, known in (("data", DATA_KINDS), ("model", MODEL_USES)):
        options = {item.name for item in get_shipped_fields().list_group_options(group) if item.target}
        assert options == set(known)


def test_callbacks_that_were_added_stay() -> None:
    cfg = copy.deepcopy(composed("resnet"))
    apply(cfg, ["callbacks=[early_stopping]"])
    advice = suggest_key("ema", True, collect_names(cfg, groups=groups()))
    assert advice is not None
    assert advice.fix == "callbacks=[default,early_stopping,ema]"


@pytest.mark.parametrize(
    ("recipe", "name", "value", "fix", "why"),
    [
        ("gpt", "adam_beta2", 0.99, "optimizer.betas=[0.9,0.99]", ""),
        ("gpt", "optimizer.beta2", 0.99, "optimizer.betas=[0.9,0.99]", ""),
        ("gpt", "momentum", 0.8, "optimizer.betas=[0.8,0.95]", "cycle_momentum=false"),
        ("resnet", "adam_beta1", 0.8, "optimizer=adamw optimizer.betas=[0.8,0.999]", "lr 0.1 becomes 0.001"),
        ("tabular", "hidden_dim", 128, "model.width=128", ""),
        ("gpt", "hidden_size", [64], "model.width=64", ""),
        (
            "resnet", "val_fraction", 0.2, "data.val_fraction is a key of data=image_table, data=imagefolder",
            "this run has data=digits",
        ),
        ("tabular", "mixup", 0.2, "leave mixup out", "is for images"),
        ("segmentation", "mixup", 0.2, "leave mixup out", "task=segmentation"),
        ("gpt", "hflip", 0.5, "leave hflip out", "which has texts"),
        ("tabular", "loss", "mse", "leave loss out", "task=regression"),
        ("resnet", "num_classes", 5, "leave num_classes out", "counted in the data"),
        ("tabular", "metrics", ["accuracy"], "metric=val/accuracy", ""),
        ("gpt", "metric_for_best_model", "eval_perplexity", "metric=val/perplexity", ""),
        (
            "gpt", "optim", "adafactor",
            "optimizer._target_=torch.optim.Adafactor scheduler.cycle_momentum=false", "takes the place",
        ),
        ("gpt", "min_lr", 1e-5, "scheduler.final_div_factor=8.0", "OneCycle"),
        ("gpt", "warmup_ratio", 0.1, "scheduler.pct_start=0.1", ""),
        ("gpt", "warmup_steps", 100, "scheduler=warmup_cosine scheduler.warmup=100", "takes the place"),
        ("gpt", "n_layer", 6, "model.layers=6", ""),
        ("resnet", "save_freq", "epoch", "leave save_freq out", "after each epoch"),
        ("resnet", "default_hooks.checkpoint.interval", 5, "callbacks.checkpoint.every_n_epochs=5", ""),
        ("resnet", "default_hooks.logger.interval", 50, "trainer.log_every_n_steps=50", ""),
        ("resnet", "checkpoint.max_keep_ckpts", 3, "callbacks.checkpoint.save_top_k=3", ""),
        ("resnet", "restore_best_weights", True, "leave restore_best_weights out", "best.ckpt"),
        ("resnet", "auto_scale_lr.enable", True, "leave auto_scale_lr.enable out", "any number of devices"),
        ("resnet", "param_scheduler.T_max", 30, "leave param_scheduler.T_max out", "optimizer steps"),
        ("tabular", "model.net.lin1_size", 128, "model.width=128", ""),
        ("regression", "model.net.lin2_size", 128, "model.width=128", ""),
        ("resnet", "cls_pw", 1.0, "task.class_weights=balanced", "inverse frequency"),
        ("resnet", "cls_pw", 0.0, "leave cls_pw out", "same weight"),
        ("gpt", "cls_pw", 1.0, "leave cls_pw out", ""),
        ("resnet", "datamodule", "cifar10", "data=imagefolder data.root=cifar10", "not bundled"),
        ("text", "optimirzer", "adamw", "optimizer=adamw", ""),
        ("resnet", "train_file", "a.csv", "a table of your own is data=table with data.train and data.target, "
         "images are data=imagefolder with data.root", ""),
        ("gpt", "sched", "step", "scheduler=none scheduler.scheduler._target_=torch.optim.lr_scheduler.StepLR "
         "scheduler.scheduler._partial_=true scheduler.scheduler.step_size=30 scheduler.interval=epoch", "an example"),
        ("resnet", "class_map", "m.txt", "leave class_map out", "order of the names"),
        ("resnet", "evaluation_strategy", "epoch", "leave evaluation_strategy out", "follows each epoch"),
        ("text", "optim", "adamw", "leave optim out", "this run has"),
    ],
)  # fmt: skip
def test_the_fix_in_a_recipe(recipe: str, name: str, value: object, fix: str, why: str) -> None:
    advice = suggest_key(name, value, names(recipe))
    assert advice is not None
    assert advice.fix == fix
    assert why in advice.why


def test_arguments_that_timm_passes_on() -> None:
    cfg = compose_config(parse_command_line("train", ["model=timm"]))
    for name, fix in {"drop_path": "model.drop_path_rate=0.1", "dropout": "model.drop_rate=0.1"}.items():
        (problem,) = check_with(cfg, name)
        assert problem.fix == fix


def check_with(cfg: DictConfig, name: str) -> list[MLScaleError]:
    cfg = copy.deepcopy(cfg)
    OmegaConf.update(cfg, name, 0.1, force_add=True)
    return check_config(cfg, groups=groups())


def test_no_option_is_suggested_for_data_of_the_users_own() -> None:
    cfg = copy.deepcopy(composed("resnet"))
    cfg.data = {"_target_": "torch.nn.Identity"}
    cfg.augment = {}
    advice = suggest_key("mixup", 0.2, collect_names(cfg, groups=groups()))
    assert advice is not None
    assert advice.fix == "leave mixup out"
    assert "torch.nn.Identity" in advice.why
