"""Typos of groups and of Hydra's own keys, and a measurement of random typos in the configs of recipes."""

from __future__ import annotations

import copy
import random
import re
import shlex
import string
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.config.checks.check import check_config
from mlscale.config.checks.suggestions import suggest_key
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.request import Request
from mlscale.config.schema.value_types import DICT, FLOAT, INT, STR, make_list_type
from mlscale.config.schema.values import convert_value
from mlscale.errors import MLScaleError
from tests.unit.config.checks.composed_names import names

RECIPES = ("tabular", "resnet", "gpt", "segmentation", "finetune")
NODE_KEYS = {"_target_": "torch.nn.Identity", "_partial_": True, "_convert_": "all", "_args_": [1], "_check_": False}
NODES = ("data", "optimizer", "callbacks.nonfinite")


@cache
def composed(*overrides: str) -> tuple[Request, DictConfig]:
    request = parse_command_line("train", overrides)
    return request, compose_config(request)


def edits(word: str) -> Iterator[str]:
    """Every deletion and transposition of a word, and one insertion and substitution at each place."""
    for i in range(len(word)):
        yield word[:i] + word[i + 1 :]
        yield f"{word[:i]}q{word[i:]}"
        yield f"{word[:i]}q{word[i + 1 :]}"
        yield word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :]


def problems(path: str, value: object, *overrides: str) -> list[MLScaleError]:
    """The problems of a config with one more key, as if it had been typed."""
    request, cfg = composed(*overrides)
    cfg = copy.deepcopy(cfg)
    OmegaConf.update(cfg, path, value, force_add=True)

    def origin(key: str) -> str:
        typed = path.startswith(f"{key}.") or f"{key}.".startswith(f"{path}.")
        return f"command line: {key}" if typed else ""

    return check_config(cfg, groups=request.roots.groups, origin=origin)


def test_every_typo_of_a_node_key_is_answered_with_it() -> None:
    for node in NODES:
        for key, value in NODE_KEYS.items():
            for typed in edits(key):
                if typed in NODE_KEYS or typed == "_args":
                    continue
                advice = suggest_key(f"{node}.{typed}", value, names())
                assert advice is not None, typed
                assert advice.fix.startswith(f"{node}.{key}="), (typed, advice)


@pytest.mark.parametrize("group", ["data", "model", "task", "optimizer", "scheduler", "trainer", "callbacks", "logger"])
def test_a_misspelt_group_in_front_of_a_node_key(group: str) -> None:
    entry = {"callbacks": ".checkpoint", "logger": ".csv"}.get(group, "")
    for typed in list(edits(group))[4:8]:  # one of each kind, at the second letter
        (problem,) = problems(f"{typed}{entry}._target_", "torch.nn.Identity")
        assert problem.fix == f"{group}{entry}._target_=torch.nn.Identity", typed


@pytest.mark.parametrize(
    ("typed", "value", "fix"),
    [
        ("callbakcs.checkpoint.monitor", "${metric}", "'callbacks.checkpoint.monitor=${metric}'"),
        ("callback.stall.stop", False, "callbacks.stall.stop=false"),
        ("modle.net", {"_target_": "my.Net"}, "model._target_=my.Net"),
        ("mode.widths", [8], "model.widths=[8]"),
        ("optimize.lr", 0.1, "optimizer.lr=0.1"),
        ("optimzer.name", "adamw", "optimizer=adamw"),
        ("callbacks.metrics.target_", "my.Metrics", "callbacks.metrics._target_=my.Metrics"),
        ("model.block", 1, "model.blocks=1"),
    ],
)
def test_the_group_or_key_that_was_meant(typed: str, value: object, fix: str) -> None:
    (problem,) = problems(typed, value)
    assert problem.fix == fix


def test_each_key_of_a_misspelt_group_is_reported() -> None:
    fixes = [problem.fix for problem in problems("optimzer", {"_target_": "torch.optim.SGD", "lr": 1, "momntum": 0.5})]
    assert fixes == ["optimizer._target_=torch.optim.SGD", "optimizer.lr=1", "optimizer.momentum=0.5"]


@pytest.mark.parametrize(
    ("typed", "value", "fix"),
    [
        ("trainer.device", 4, "trainer.devices=4"),
        ("trainer.device", "cuda", "trainer.accelerator=cuda"),
        ("device", "cuda", "trainer.accelerator=cuda"),
        ("optimizer.dr", 0.002, "optimizer.lr=0.002"),
        ("optimizer.l2", 0.1, "optimizer.lr=0.1\noptimizer.weight_decay=0.1"),
        ("optimizer.wd", 0.1, "optimizer.weight_decay=0.1"),
    ],
)
def test_a_key_one_edit_away_in_its_group_comes_before_a_foreign_name(typed: str, value: object, fix: str) -> None:
    advice = suggest_key(typed, value, names())
    assert advice is not None
    assert advice.fix == fix


@pytest.mark.parametrize(
    ("value", "kinds", "fits"),
    [
        ("${metric}", [FLOAT], True), ({"a": "${metric}"}, [FLOAT], False), ({"a": "${metric}"}, [STR], False),
        ({"a": "${metric}"}, [DICT], True), ({"_target_": "a.B"}, [FLOAT], False), (["${seed}"], [FLOAT], False),
        (["${seed}"], [make_list_type(INT)], True), ({"_target_": "a.B"}, [], True),
    ],
)  # fmt: skip
def test_an_interpolation_inside_a_value_does_not_change_its_kind(value: object, kinds: Any, fits: bool) -> None:
    assert convert_value(value, kinds)[0] is fits


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        below = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value:
            yield from leaves(value, below)
        else:
            yield below, value


def mistype(word: str, random_: random.Random) -> str:
    i, letter = random_.randrange(len(word)), random_.choice(string.ascii_lowercase)
    kind = random_.choice(("insert", "leave out", "swap", "replace"))
    rest = {"insert": letter + word[i:], "leave out": word[i + 1 :], "replace": letter + word[i + 1 :]}
    return word[:i] + rest.get(kind, word[i + 1 : i + 2] + word[i] + word[i + 2 :])


def suggested_keys(fix: str) -> list[str]:
    """The keys of a suggestion, the first of several candidates in front."""
    return [word.partition("=")[0] for word in shlex.split(fix) if "=" in word]


@pytest.mark.slow
def test_random_typos_in_composed_configs_get_the_right_key() -> None:
    random_ = random.Random(20261126)
    keys = []
    for recipe in RECIPES:
        tree = OmegaConf.to_container(composed(f"recipe={recipe}")[1], resolve=False)
        assert isinstance(tree, dict)
        every = [(path, value) for path, value in leaves(tree) if not path.startswith(("hydra.", "derived."))]
        keys += [(recipe, path, value) for path, value in every if value != {}]
    count, right, wrong = 0, 0, []
    while count < 200:
        recipe, path, value = random_.choice(keys)
        parts = path.split(".")
        i = random_.randrange(len(parts))
        parts[i] = mistype(parts[i], random_)
        typed = ".".join(parts)
        if (
            typed == path
            or not re.match(r"[a-z_]", parts[i])
            or not (found := problems(typed, value, f"recipe={recipe}"))
        ):
            continue  # another valid key
        count += 1
        meant = suggested_keys(found[0].fix)
        if path in meant[:2] and typed not in meant:  # an option may come first
            right += 1
        elif meant:
            wrong.append((recipe, typed, found[0].fix))
    assert right >= 0.98 * count, right
    assert len(wrong) <= 0.005 * count, wrong
