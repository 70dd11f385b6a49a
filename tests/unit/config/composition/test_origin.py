"""Which file or override set each key. Also the contract with Hydra's private API that `origin.py` uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import annotate_config, create_origin_lookup, locate_key


def found(*overrides: str) -> tuple[DictConfig, Callable[[str], str]]:
    request = parse_command_line("train", overrides)
    return compose_config(request), create_origin_lookup("train", request.overrides, request.roots)


def leaves(tree: object, path: str = "") -> Iterator[str]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path


@pytest.mark.parametrize(
    "overrides",
    [
        ("recipe=resnet",),
        ("recipe=resnet", "debug=fast", "logger=[csv,wandb]", "~callbacks.progress", "trainer.devices=8"),
        ("model=mlp", "optimizer=adamw", "callbacks=[default,early_stopping]", "data=imagefolder"),
        ("scheduler={}", "tags=[a,b]", "trainer.x={a:{b:1}}", "trainer.x.a.c=2"),
    ],
)
def test_every_leaf_has_an_origin_and_nothing_else_has(overrides: tuple[str, ...]) -> None:
    cfg, origin = found(*overrides)
    assert [path for path in leaves(OmegaConf.to_container(cfg)) if not origin(path)] == []
    assert origin("no.such.key") == ""


def test_later_wins() -> None:
    _, origin = found("recipe=resnet", "trainer.devices=8", "debug=limit", "optimizer.momentum=0.8")
    assert {
        path: origin(path)
        for path in (
            "optimizer.lr", "optimizer.momentum", "optimizer.nesterov", "trainer.devices", "trainer.max_epochs",
            "name", "seed", "callbacks.checkpoint.mode", "derived.run_dir",
        )
    } == {
        "optimizer.lr": "recipes/optimizer/resnet_sgd.yaml",
        "optimizer.momentum": "command line: optimizer.momentum=0.8",
        "optimizer.nesterov": "conf/optimizer/sgd.yaml",
        "trainer.devices": "command line: trainer.devices=8",
        "trainer.max_epochs": "conf/debug/limit.yaml",
        "name": "recipes/recipe/resnet.yaml",
        "seed": "conf/base/run.yaml",
        "callbacks.checkpoint.mode": "conf/callbacks/checkpoint.yaml",
        "derived.run_dir": "conf/base/run.yaml",
    }  # fmt: skip


def test_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("defaults: [resnet]\nblocks: 3\n")
    monkeypatch.chdir(tmp_path)
    _, origin = found("model=mine")
    assert origin("model.blocks") == "./conf/model/mine.yaml"
    assert origin("model.widths") == "conf/model/resnet.yaml"


def test_locate() -> None:
    known = {"a.b.c": "one", "a.list": "two"}
    assert locate_key(known, "a.b") == "one"
    assert locate_key(known, "a.list[0].x") == "two"
    assert locate_key(known, "b") == ""


def test_annotated_yaml_is_the_config() -> None:
    cfg, origin = found("recipe=resnet")
    text = annotate_config(cfg, origin)
    expected = OmegaConf.to_container(cfg)
    assert OmegaConf.to_container(OmegaConf.create(text)) == expected
    assert "lr: 0.1  # recipes/optimizer/resnet_sgd.yaml" in [
        " ".join(line.split()).replace(" #", "  #") for line in text.splitlines()
    ]
