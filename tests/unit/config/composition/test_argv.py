"""What was typed becomes what Hydra reads."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mlscale.config.composition.argv import parse_command_line
from mlscale.errors import MLScaleError


def overrides(*words: str) -> tuple[str, ...]:
    return parse_command_line("train", words).overrides


@pytest.mark.parametrize("word", ["recipe=resnet", "+recipe=resnet"])
def test_recipe_with_and_without_plus(word: str) -> None:
    assert overrides(word) == ("+recipe=resnet",)


def test_later_groups_win_whatever_the_typed_order() -> None:
    assert overrides("debug=fast", "model=mlp", "recipe=resnet") == ("model=mlp", "+recipe=resnet", "+debug=fast")


@pytest.mark.parametrize("word", ["optimizer=adamw", "+optimizer=adamw"])
def test_base_group_selects(word: str) -> None:
    assert overrides(word) == ("optimizer=adamw",)


@pytest.mark.parametrize("word", ["trainer.devcies=8", "+trainer.devcies=8", "++trainer.devcies=8"])
def test_every_key_meets_the_checker(word: str) -> None:
    assert overrides(word) == ("++trainer.devcies=8",)


def test_hydra_and_deletions_are_left_alone() -> None:
    words = ("hydra/launcher=basic", "~callbacks.progress")
    assert parse_command_line("train", ["-m", *words]).overrides == words


@pytest.mark.parametrize(
    "value",
    [
        "/data/train-{000..010}.tar",
        "/data/{a,b}.tar",
        "/data/x?y=1&z#a.tar",
        "/data/it's here/a b.tar",
        "/data/back\\slash\\",
        "/data/a,b/c.tar",
    ],
)
def test_paths_just_work(value: str) -> None:
    (override,) = overrides(f"data.train={value}")
    assert OverridesParser.create().parse_override(override).value() == value


def test_sweep_without_multirun_is_explained() -> None:
    with pytest.raises(MLScaleError) as caught:
        overrides("optimizer.lr=0.1,0.01")
    assert caught.value.fix == "-m optimizer.lr=0.1,0.01, which runs one job for each"


def test_flags_anywhere_and_several_config_dirs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    request = parse_command_line(
        "train", ["-m", "seed=1,2", "--config-dir", str(tmp_path / "a"), "-cd", str(tmp_path / "b")]
    )
    assert request.multirun
    assert [root.path.name for root in request.roots.roots][:2] == ["a", "b"]
    assert parse_command_line("train", ["--info", "seed=1"]).flags == ("--info", "all")
    assert parse_command_line("train", ["seed=1", "--cfg", "job", "--resolve"]).flags == ("--resolve", "--cfg", "job")


def test_all_unknown_words_at_once() -> None:
    with pytest.raises(MLScaleError) as caught:
        overrides("resnet", "--devices=8")
    assert "unknown word 'resnet'" in str(caught.value)
    assert "fix:   trainer.devices=8" in str(caught.value)


@pytest.mark.parametrize(
    ("verb", "words", "fix"),
    [
        ("train", "--gpus 2 seed=1", "trainer.devices=2"),
        ("train", "+recipe=tabular --dataset mnist", "data=digits"),
        ("train", "--opt adam", "optimizer._target_=torch.optim.Adam"),
        ("train", "--devices=8", "trainer.devices=8"),
        ("train", "--lr 0.2 seed=1", "optimizer.lr=0.2"),
        ("train", "--trainer.devices 8", "trainer.devices=8"),
        ("train", "--fp16", "precision=fp16"),
        ("train", "--epochs -1", "trainer.max_epochs=-1"),
        ("train", "seed=1 resnet", "recipe=resnet"),
        ("train", "+recipe resnet", "recipe=resnet"),
        ("train", "trainer.max_epochs = 3", "trainer.max_epochs=3"),
        ("train", "optimizer.lr:0.2", "optimizer.lr=0.2"),
        ("evaluate", "split=test last", "mlscale evaluate last split=test"),
        ("loadtest", "--users 3", "users=3"),
        ("train", "--trainer.logger=false", "logger=none"),
        ("train", "+recipe=tabular --trainer.logger false", "logger=none"),
        ("train", "--trainer.precision=16", "precision=fp16"),
        ("train", "--trainer.strategy ddp trainer.devices=2", "strategy=ddp"),
        ("train", "--trainer.callbacks=null", "callbacks=none"),
    ],
)
def test_what_was_meant_by_words_of_other_command_lines(verb: str, words: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_command_line(verb, words.split())
    assert str(caught.value).count("fix:") == 1
    assert str(caught.value).endswith(f"fix:   {fix}")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--lr 0.1", "settings are typed as key=value"),
        ("--trainer.logger=false", "settings are typed as key=value; the group 'logger' owns it"),
        ("--shuffle", "settings are typed as key=value; training data is always shuffled"),
        ("--batch 32", "settings are typed as key=value; global, over all devices and accumulation"),
    ],
)
def test_a_flag_has_the_reason_of_its_fix(words: str, why: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_command_line("train", words.split())
    assert why in caught.value.why


@pytest.mark.parametrize("words", [["optimizer.lr = 0.1"], ["optimizer.lr", "=", "0.1"], ["epochs", "3"]])
def test_words_that_are_no_setting_are_one_error(words: list[str]) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_command_line("train", ["+recipe=resnet", *words])
    assert caught.value.what == f"unknown word '{' '.join(words)}'"
    assert caught.value.why == "settings are typed as key=value"


@pytest.mark.parametrize(
    "typed", ["callbacks=[default,ema", "optimizer=sgd!", "é=1", "x(y)=1", ".=1", "recipe=€", "optimizer.lr=${a"]
)
def test_what_cannot_be_read_is_shown_as_it_was_typed(typed: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_command_line("train", [typed])
    assert caught.value.what == f"'{typed}' can't be read"
    assert caught.value.why


@pytest.mark.parametrize(
    "words", ["-x", "optimizer.lr", "--trainer.max_epochs many", "--kd-loss-type kl", "--qwerty 3"]
)
def test_nothing_is_suggested_for_a_word_that_means_nothing_here(words: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_command_line("train", words.split())
    assert caught.value.fix == ""
