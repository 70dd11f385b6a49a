"""A composition that `tests/composed_once.py` shortens is the one of Hydra alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.errors import MLScaleError
from tests import composed_once


@pytest.fixture(autouse=True)
def installed_again() -> Iterator[None]:
    yield
    composed_once.install()


def compose(command: str, *words: str) -> DictConfig:
    return compose_config(parse_command_line(command, words))


def compose_alone(command: str, *words: str) -> DictConfig:
    composed_once.uninstall()
    try:
        return compose(command, *words)
    finally:
        composed_once.install()


def render(cfg: DictConfig) -> str:
    return OmegaConf.to_yaml(cfg) + repr([cfg._get_flag(flag) for flag in ("struct", "readonly", "allow_objects")])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ("recipe=resnet",)),
        ("train", ("recipe=gpt", "trainer.max_steps=3")),
        ("train", ("logger=[csv,wandb]", "callbacks=[default,early_stopping]", "+notes=x", "optimizer.lr=1")),
        ("train", ("model=mlp", "~scheduler", "~trainer.max_time", "data.root=${oc.env:HOME}", "debug=fast")),
        ("lifecycle", ("recipe=tabular",)),
        ("serve", ("ref=last", "port=0")),
    ],
)
def test_first_and_again_it_is_the_same(command: str, words: tuple[str, ...]) -> None:
    alone = compose_alone(command, *words)
    for _ in range(2):
        once = compose(command, *words)
        assert once == alone
        assert render(once) == render(alone)
        once.seed = "changed"  # in this copy only


def test_a_users_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "conf/model/mine.yaml"
    mine.parent.mkdir(parents=True)
    for width in (1, 2):
        mine.write_text(f"_target_: torch.nn.Linear\nin_features: {width}\n")
        assert compose("train", "model=mine").model.in_features == width
    mine.unlink()
    with pytest.raises(MLScaleError, match="mine"):
        compose("train", "model=mine")
    mine.write_text("_target_: torch.nn.Linear\nin_features: 3\n")
    assert compose("train", "model=mine") == compose_alone("train", "model=mine")
