"""The table of foreign names: what it suggests is what this config takes."""

from __future__ import annotations

import re
import subprocess
from functools import cache

import pytest
from omegaconf import OmegaConf

from mlscale.config.aliases import ALIASES, PRECISIONS, Alias
from mlscale.config.argv import parse
from mlscale.config.compose import compose
from mlscale.config.fields import shipped
from mlscale.config.nodes import all_nodes
from mlscale.config.roots import find_roots
from mlscale.config.suggest import Names, advise, nearest, override, render, show

EVERYTHING = (
    ("logger=[csv,wandb]", "callbacks=[default,freeze,early_stopping]", "scheduler=one_cycle"),
    ("data=imagefolder", "optimizer=adamw", "strategy=ddp", "model=resnet18"),
    ("data=webdataset", "model=mlp", "augment=cutmix"),
    ("callbacks=[default,ema,grad_norm,lr_monitor,loss_spike,device_stats,notify]", "scheduler=warmup_cosine"),
)


@cache
def names(*overrides: str) -> Names:
    request = parse("train", overrides)
    tree = OmegaConf.to_container(compose(request))
    top = [path for path in shipped().top if not path.startswith("derived.")]
    return Names(
        [*top, *(path for node in all_nodes(tree, "", shipped()) for path in node.paths)], request.roots.groups
    )


def suggested(alias: Alias) -> list[str]:
    """Every override that the alias may suggest, with a stand-in for the value."""
    whole = [*alias.values.values(), alias.text, alias.also, *(f"{key}=1" for key in alias.keys)]
    return [word for text in whole for word in text.split()]


def test_the_table_is_long() -> None:
    assert len(ALIASES) >= 150


@pytest.mark.parametrize("name", sorted(ALIASES))
def test_an_alias_suggests_what_exists(name: str) -> None:
    alias, groups = ALIASES[name], find_roots().groups
    known = {path for overrides in EVERYTHING for path in names(*overrides).paths} | {"model.weights"}
    known |= set(shipped().of("precision"))  # a group that builds nothing
    assert alias.note or suggested(alias) or alias.group
    for word in suggested(alias):
        key, _, value = word.lstrip("~").partition("=")
        if key in groups:
            options = re.split(r"[\[\],]+", value.strip("[]"))
            assert set(options) <= set(groups[key]) | {"{value}"}, word
        else:
            assert key in known or key.endswith("._target_") or key == "callbacks.progress", word


@pytest.mark.parametrize("name", sorted(set(PRECISIONS.values())))
def test_precisions_are_options(name: str) -> None:
    assert name in find_roots().groups["precision"]


@pytest.mark.parametrize(
    ("typed", "value", "fix"),
    [
        ("gpus", 8, "trainer.devices=8 trainer.accelerator=gpu"),
        ("gpus", 0, "trainer.accelerator=cpu"),
        ("n_epochs", 3, "trainer.max_epochs=3"),
        ("trainer.epochs", 3, "trainer.max_epochs=3"),
        ("amp", False, "precision=fp32"),
        ("mixed_precision", "no", "precision=fp32"),
        ("precision", 16, "precision=fp16"),
        ("optimizer.name", "AdamW", "optimizer=adamw"),
        ("optimizer_name", "rmsprop", "optimizer._target_=torch.optim.rmsprop"),
        ("optimizer_name", "my_pkg.Lion", "optimizer._target_=my_pkg.Lion"),
        ("arch", "efficientnet_b0", "model=timm model.model_name=efficientnet_b0"),
        ("net", "my_pkg.Net", "model._target_=my_pkg.Net"),
        ("hidden_sizes", [64, 32], "model=mlp model.hidden=[64,32]"),
        ("optimizer.betas", [0.9, 0.95], "optimizer=adamw optimizer.betas=[0.9,0.95]"),
        ("eps", 1e-7, "optimizer=adamw optimizer.eps=1e-07"),
        ("experiment", "resnet", "recipe=resnet"),
        ("experiment", "study-7", "name=study-7"),
        ("dataset", "fashion-mnist", "data=fashion_mnist"),
        ("report_to", "wandb", "logger=wandb"),
        ("distributed_backend", "nccl", "strategy=ddp"),
        ("greater_is_better", False, "mode=min"),
        ("val_split", 0.2, "data=imagefolder data.val_fraction=0.2"),
        ("verbose", 0, "~callbacks.progress"),
        ("callback", "early_stopping", "callbacks=[default,early_stopping]"),
        ("bs", 64, "data.batch_size=64"),
        ("ema", True, "callbacks=[default,ema]"),
        ("ema_decay", 0.9999, "callbacks=[default,ema] callbacks.ema.decay=0.9999"),
        ("warmup_steps", 500, "scheduler=warmup_cosine scheduler.warmup=500"),
        ("clipvalue", 0.5, "trainer.gradient_clip_val=0.5 trainer.gradient_clip_algorithm=value"),
        ("torch_compile", True, "compile=true"),
        ("float32_matmul_precision", "high", "tf32=true"),
        ("track_grad_norm", 2, "callbacks=[default,grad_norm]"),
        ("learning_rate", 0.1, "optimizer.lr=0.1"),
        ("task.smoothing", 0.1, "task.label_smoothing=0.1"),
    ],
)
def test_values_translate(typed: str, value: object, fix: str) -> None:
    advice = advise(typed, value, names("recipe=resnet"))
    assert advice is not None
    assert advice.fix == fix


def test_the_first_key_that_the_config_has() -> None:
    assert render(ALIASES["data_dir"], "/d", names()) == "data.root=/d"
    assert render(ALIASES["data_dir"], "/d", names("data=webdataset")) == "data.train=/d"
    assert render(ALIASES["data_dir"], "/d", names("data=none")) == "data=imagefolder data.root=/d"


def test_nearest() -> None:
    assert nearest("devcies", ["devices", "device_stats"]) == "devices"
    assert nearest("Batch-Size", ["batch_size"]) == "batch_size"
    assert nearest("qqq", ["devices"]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (1, "1"), (0.1, "0.1"), ("x/y-z.txt", "x/y-z.txt"), ("5", "'5'"),
        ("true", "'true'"), ("a b", "a b"), ("a,b", "'a,b'"), ([1, "a"], "[1,a]"), ({"a": 1}, "{a:1}"),
        ("it's", "'it\\'s'"),
    ],
)  # fmt: skip
def test_values_are_shown_in_hydras_grammar(value: object, text: str) -> None:
    assert show(value) == text


@pytest.mark.parametrize(
    "value", ["plain", "a b", "5", "true", "a,b", "x&y", "{1..3}.tar", "it's", "a?b=c", "$HOME", ""]
)
def test_an_override_survives_the_shell_and_hydra(value: str) -> None:
    command = ["sh", "-c", f"printf %s {override('name', value)}"]
    word = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert compose(parse("train", [word])).name == value
