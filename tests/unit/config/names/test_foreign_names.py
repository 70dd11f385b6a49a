"""The table of names from other programs: what a name means exists, and a key is translated with its value."""

from __future__ import annotations

import re
import shlex
from functools import cache

import pytest

from mlscale.commands import COMMANDS
from mlscale.config.checks.suggestions import get_option_types, suggest_key, suggest_option
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.names.foreign_names import find_value_meanings, is_sentence, load_foreign_names
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.roots import COMMAND_BASES, find_roots
from mlscale.errors import MLScaleError
from scripts.foreign_names_page import PAGE, TABLE, write_page
from tests.unit.config.checks.composed_names import names, problems


@cache
def list_meanings() -> frozenset[str]:
    return frozenset(meaning for meanings in load_foreign_names().values() for meaning in meanings)


def test_the_table_is_small() -> None:
    assert len(TABLE.read_text(encoding="utf-8").splitlines()) <= 200
    assert len(load_foreign_names()) > 600


def test_the_page_has_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == write_page(), "python -m scripts.foreign_names_page"


def test_every_key_group_and_command_exists() -> None:
    groups = find_roots().groups
    known = {
        *groups,
        *names().paths,
        *(path for name in COMMAND_BASES for path in get_shipped_fields().get_own_fields(name)),
    }
    known |= {f"{group}.{option}" for group, options in groups.items() for option in options}
    for option in get_shipped_fields().options:
        known |= {*get_option_types(option.group, option.name)}
    for meaning in list_meanings():
        if meaning.startswith("mlscale ") and not is_sentence(meaning.removeprefix("mlscale ")):
            assert meaning.split(" ")[1] in COMMANDS
        elif not is_sentence(meaning):
            keys = [word.partition("=")[0].removeprefix("~").removesuffix("._target_") for word in meaning.split(" ")]
            assert set(keys) <= known, meaning


def test_overrides_compose_and_pass_the_check() -> None:
    typed = [meaning for meaning in list_meanings() if "=" in meaning and not is_sentence(meaning)]
    assert len(typed) > 50
    for meaning in typed:
        is_command = meaning.startswith(("target=", "metric=", "model.", "estimate.")) or "launch" in meaning
        assert is_command or problems(shlex.split(meaning)) == [], meaning


def test_what_exists_is_not_a_name_from_elsewhere() -> None:
    groups = find_roots().groups
    existing = {f"{group}={option}" for group, options in groups.items() for option in options}
    existing |= set(groups)
    assert {name for name in load_foreign_names() if name in existing} == set()


@pytest.mark.parametrize(
    ("typed", "value", "fix"),
    [
        ("gpus", 8, "trainer.devices=8"),
        ("gpus", 0, ""),
        ("n_epochs", 3, "trainer.max_epochs=3"),
        ("trainer.epochs", 3, "trainer.max_epochs=3"),
        ("SOLVER.BASE_LR", 0.1, "optimizer.lr=0.1"),
        ("batch", 32, "data.batch_size=32"),
        ("batch", "auto", ""),
        ("amp", True, "precision=bf16"),
        ("amp", False, "precision=fp32"),
        ("mixed_precision", "bf16-mixed", "precision=bf16"),
        ("optimizer.name", "AdamW", "optimizer=adamw"),
        ("opt", "adam", "optimizer._target_=torch.optim.Adam"),
        ("opt", "lamb", ""),
        ("arch", "resnet50", "model._target_=torchvision.models.resnet50"),
        ("lr_scheduler_type", "cosine", "scheduler=cosine"),
        ("warmup_ratio", 0.1, "scheduler.pct_start=0.1"),
        ("report_to", "wandb", "logger=wandb"),
        ("strategy.name", "ddp", "strategy=ddp"),
        ("ema", True, "callbacks=[default,ema]"),
        ("ema", 0.99, "callbacks=[default,ema] callbacks.ema.decay=0.99"),
        ("patience", 5, "callbacks=[default,early_stopping] callbacks.early_stopping.patience=5"),
        ("wandb_project", "cats", "logger=[csv,wandb] logger.wandb.project=cats"),
        ("enable_checkpointing", False, "~callbacks.checkpoint"),
        ("greater_is_better", False, "mode=min"),
        ("per_device_train_batch_size", 8, ""),
        ("deepspeed", "ds.json", ""),
        ("mixup_alpha", 0.2, "augment.mixup=0.2"),
        ("step_size", 30, ""),
    ],
)
def test_a_name_is_translated_with_its_value(typed: str, value: object, fix: str) -> None:
    advice = suggest_key(typed, value, names("recipe=resnet", "scheduler=one_cycle"))
    assert (advice.fix if advice else "") == fix


def test_nothing_is_set_that_was_not_typed() -> None:
    """A meaning sets keys to what was typed; a value of its own is a switch, an option or a class."""
    words = [word for meaning in list_meanings() if not is_sentence(meaning) for word in meaning.split(" ")]
    values = {word.partition("=")[2] for word in words if "=" in word}
    assert [value for value in values if re.search(r"\d", value) and not re.search(r"[a-z]", value)] == []


@pytest.mark.parametrize(
    ("group", "value", "fix"),
    [
        ("strategy", "dp", "strategy=ddp"),
        ("precision", 16, "precision=fp16"),
        ("logger", False, "logger=none"),
        ("logger", ["wandb", "csv"], "logger=[wandb,csv]"),
        ("optimizer", "SGD", "optimizer=sgd"),
        ("optimizer", "rmsprop", "optimizer._target_=torch.optim.RMSprop"),
        ("model", "gpt3", ""),
        ("model", "yolov8n.pt", ""),
        ("callbacks", "early_stoping", "callbacks=[default,early_stopping]"),
    ],
)
def test_an_option_is_named_by_its_name_elsewhere(group: str, value: object, fix: str) -> None:
    assert suggest_option(group, value, names()) == fix


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("recipe=gpt --n-heads 8", "model.heads=8"),
        ("recipe=gpt --max-seq-length 64", "data.length=64"),
        ("model=gone --lr 0.2", "optimizer.lr=0.2"),
        ("--label-smoothing 0.1", "task.label_smoothing=0.1"),
        ("--devices -1", "trainer.devices=-1"),
    ],
)
def test_flags_are_answered_from_the_options_that_are_chosen(words: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as error:
        parse_command_line("train", words.split())
    assert error.value.fix == fix


def test_a_metric_may_be_called_the_same_by_several_tasks() -> None:
    assert set(find_value_meanings("metric", "acc")) == {
        "metric=val/accuracy",
        "metric=val/pixel_accuracy",
        "metric=val/exact_match",
    }
