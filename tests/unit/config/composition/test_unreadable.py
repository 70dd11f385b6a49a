"""Overrides that Hydra's grammar can't read are reported without its parser's words, with a fix that composes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.errors import MLScaleError

PARSER = ("token", "viable", "mismatched", "extraneous", "expecting", "LexerNo", "hydra.cc", "input")


def problem(*words: str) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        compose_config(parse_command_line("train", words))
    return caught.value


@pytest.mark.parametrize(
    ("typed", "fix"),
    [
        ("callbacks=[default,ema", "callbacks=[default,ema]"),
        ("logger=[csv,wandb]]", "logger=[csv,wandb]"),
        ("logger={csv", "logger=csv"),
        ("model=timm(", "model=timm"),
        ("optimizer=sgd!", "optimizer=sgd"),
        ("recipe=resnet;", "recipe=resnet"),
        ('optimizer="sgd', "optimizer=sgd"),
        ("data=imagefolder#1", "data=imagefolder"),
        ("optimizer.lr=${a", "'optimizer.lr=${a}'"),
    ],
)
def test_what_was_meant(typed: str, fix: str) -> None:
    found = problem(typed)
    assert found.what == f"'{typed}' can't be read"
    assert found.fix == fix
    assert not any(word in str(found) for word in PARSER)
    compose_config(parse_command_line("train", shlex.split(fix)))


@pytest.mark.parametrize(
    "typed", ["é=1", "x(y)=1", "++=1", ".=1", "/=2", "recipe=€", "optimizer@x!=y", "debug=(", "a..b=1"]
)
def test_nothing_wrong_is_suggested(typed: str) -> None:
    found = problem(typed)
    assert not found.fix or "=<" in found.fix
    assert not any(word in str(found) for word in PARSER)


def test_all_at_once_and_in_a_sweep() -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_command_line("train", ["-m", "optimizer=sgd!,adamw", "debug=fast!"])
    assert "fix:   optimizer=sgd,adamw" in str(caught.value)
    assert "fix:   debug=fast" in str(caught.value)


def test_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes/recipe").mkdir(parents=True)
    (tmp_path / "recipes/recipe/mine.yaml").write_text("# @package _global_\nname: ${a\n")
    monkeypatch.chdir(tmp_path)
    assert problem("recipe=mine").why == "an interpolation is written ${key.path} or ${oc.env:NAME}"
