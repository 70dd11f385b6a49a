"""Overrides that a template stands for, in a config that has their keys and options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.job_facts import ANY, JobFacts
from mlscale.config.schema.value_types import FLOAT, INT, STR, Type, make_list_type
from mlscale.config.suggestions.config_names import Names
from mlscale.config.suggestions.templates import (
    count_batches,
    fill_template,
    get_default_names,
    get_option_types,
    parse_yaml_word,
    settle_settings,
)
from tests.unit.config.checks.small_configs import get_groups

TYPES: dict[str, Sequence[Type]] = {
    "a.int": [INT], "a.float": [FLOAT], "a.any": [], "a.list": [make_list_type(INT)], "a.two": [STR, INT],
    "name": [STR],
}  # fmt: skip
NAMES = Names(list(TYPES), get_groups(), types=lambda path: TYPES.get(path, ()), facts=JobFacts(kind=ANY))


def fill(template: str, value: object, names: Names = NAMES) -> str:
    return fill_template(template, value, names)


@pytest.mark.parametrize(
    ("template", "value", "filled"),
    [
        ("mlscale export", 3, "mlscale export"),
        ("a.int={value}", 3, "a.int=3"),
        ("a.int={value}", "3", "a.int=3"),
        ("a.int={value}", 3.5, ""),
        ("a.int={value}", "x", ""),
        ("b.int={value}", 3, ""),
        ("a.any={value}", "x", "a.any=x"),
        ("a.float={part}", 0.25, "a.float=0.25"),
        ("a.float={part}", 3, ""),
        ("a.int=7", 3, "a.int=7"),
        ("a.list=[{value}]", 3, "a.list=[3]"),
        ("a.any=x-{value}", 3, "a.any=x-3"),
        ("a.any={hours:{value}}", 3, "'a.any={hours:3}'"),
        ("~callbacks.ema", 3, "~callbacks.ema"),
        ("~callbacks.ema a.int={value}", 3, "~callbacks.ema a.int=3"),
        ("a.int=1 b.int=2", 3, ""),
        ("a.int=1 a.float={value}", 3, "a.int=1 a.float=3"),
        ("name={name}", "res-net_5", "name=res-net_5"),
        ("name={name}", "a.b", ""),
        ("name={name}", "a/b", ""),
        ("name={name}", 3, ""),
        ("name={name}", "5a", ""),
        ("name={path}", "a/b.c", "name=a/b.c"),
        ("name={path}", "~/x-1", "\"name='~/x-1'\""),
        ("name={path}", "ab", ""),
        ("name={path}", "a b/c", ""),
        ("name={path}", None, ""),
        ("name={run}", "last", "name=last"),
        ("name={run}", "auto", "name=auto"),
        ("name={run}", "k3x9q2m4p7zt", "name=k3x9q2m4p7zt"),
        ("name={run}", "abcdefghijkl", ""),
        ("name={run}", "k3x9q2m4p7z", ""),
        ("name={run}", 123456789012, ""),
        ("name={run}", "k3x9q2m4p7ztt", ""),
        ("name={run}", "K3x9q2m4p7zt", ""),
    ],
)
def test_a_template_is_filled_where_the_config_has_its_key_and_the_value_fits(
    template: str, value: object, filled: str
) -> None:
    assert fill(template, value) == filled


@pytest.mark.parametrize(
    ("template", "value", "filled"),
    [
        ("model=resnet", 3, "model=resnet"),
        ("model=no_such", 3, ""),
        ("callbacks=[default,ema]", 3, "callbacks=[default,ema]"),
        ("callbacks=[default,no_such]", 3, ""),
        ("callbacks=ema callbacks.ema.every={value}", 3, "callbacks=ema callbacks.ema.every=3"),
        ("callbacks=[default,ema] callbacks.ema.every={value}", "x", ""),
        ("callbacks.ema.every={value}", 3, ""),
        ("model=resnet model.widths=[{value}]", 3, "model=resnet model.widths=[3]"),
        ("precision=fp16 precision.loss_scale={value}", 3, "precision=fp16 precision.loss_scale=3"),
        ("model=mlp model.widths=[{value}]", 3, ""),
    ],
)
def test_an_option_brings_the_keys_that_later_words_set(template: str, value: object, filled: str) -> None:
    assert fill(template, value) == filled


@pytest.mark.parametrize(
    ("template", "value", "filled"),
    [
        ("model._target_={path}", "torch.nn.Linear", "model._target_=torch.nn.Linear"),
        ("model._target_={path}", "yolo.pt", ""),
        ("model._target_={path}", "nets/yolo", ""),
        ("model._target_={path}", "5.x", ""),
        ("name={path}", "yolo.pt", "name=yolo.pt"),
        (
            "model._target_=torch.nn.Linear model.in_features={value}",
            3,
            "model._target_=torch.nn.Linear model.in_features=3",
        ),
        ("model._target_=torch.nn.Linear model.in_features={value}", "x", ""),
        ("model._target_=torch.nn.Linear a.int={value}", 3, "model._target_=torch.nn.Linear a.int=3"),
        (
            "s.scheduler._target_=torch.nn.Linear s.interval={value}",
            "epoch",
            "s.scheduler._target_=torch.nn.Linear s.interval=epoch",
        ),
        ("s.scheduler._target_=torch.nn.Linear z.interval={value}", "epoch", ""),
        ("s.scheduler._target_=torch.nn.NoSuch s.interval={value}", "epoch", ""),
        (
            "s.a._target_=torch.nn.Linear z._target_=torch.nn.ReLU s.interval={value}",
            "epoch",
            "s.a._target_=torch.nn.Linear z._target_=torch.nn.ReLU s.interval=epoch",
        ),
        ("a._target_={value} a.int={value}", "torch.nn.Linear", "a._target_=torch.nn.Linear a.int=torch.nn.Linear"),
    ],
)
def test_a_target_in_a_template_is_a_class_and_brings_its_keys(template: str, value: object, filled: str) -> None:
    assert fill(template, value) == filled


def test_the_only_option_of_a_group_can_be_chosen() -> None:
    assert fill("logger=csv", 3, Names([], {"logger": ["csv"]})) == "logger=csv"


def test_the_keys_of_an_option_and_their_types() -> None:
    assert get_option_types("callbacks", "no_such") == {}
    ema = get_option_types("callbacks", "ema")
    assert [kind.text for kind in ema["callbacks.ema.every"]] == ["int"]
    assert "callbacks.ema._target_" not in ema
    loss_scale = get_option_types("precision", "fp16")["precision.loss_scale"]
    assert [kind.text for kind in loss_scale] == ["float"]
    plain = next(
        item for option in get_shipped_fields().options if option.target is None and option.name == "fp16"
        for item in option.fields if item.path == "precision.loss_scale"
    )  # fmt: skip
    assert loss_scale == [plain.type]
    untyped = get_option_types("precision", "fp16")["precision.value"]
    assert all(kind.text for kind in untyped)


@pytest.mark.parametrize(
    ("facts", "group", "option", "allowed"),
    [
        (JobFacts(kind="texts", task="language"), "task", "language", True),
        (JobFacts(kind="texts", task="language"), "task", "classification", False),
        (JobFacts(kind="texts", task="language"), "data", "text_files", True),
        (JobFacts(kind="texts", task="language"), "data", "imagefolder", False),
        (JobFacts(kind="tables"), "augment", "mixup", False),
        (JobFacts(kind="images", task="segmentation"), "augment", "mixup", False),
        (JobFacts(kind="images", task="classification"), "augment", "mixup", True),
        (JobFacts(chosen={"data": "my.Data"}), "data", "table", False),
        (JobFacts(kind=ANY), "data", "table", True),
    ],
)
def test_another_task_or_kind_of_data_is_not_suggested(facts: JobFacts, group: str, option: str, allowed: bool) -> None:
    names = Names([], get_groups(), facts=facts)
    assert (fill(f"{group}={option}", 3, names) != "") is allowed


def test_what_the_data_decides_is_not_suggested() -> None:
    names = replace(NAMES, values={"a.int": "${derived.num_classes}", "a.any": "${derived.run_dir}"}.get)
    assert fill("a.int={value}", 3, names) == ""
    assert fill("a.any={value}", 3, names) == "a.any=3"


def test_settings_count_as_typed() -> None:
    values = {"seed": 3, "trainer.devices": 4, "trainer.max_epochs": 9}
    before = Names([], {}, batches=99, epochs=99, values=values.get, is_typed=lambda path: path == "name")
    after = settle_settings(before, {"trainer.accumulate_grad_batches": 8, "a": None})
    assert [after.values(path) for path in ("seed", "trainer.accumulate_grad_batches", "a", "b")] == [3, 8, None, None]
    assert [after.is_typed(path) for path in ("name", "a", "seed")] == [True, True, False]
    assert (after.batches, after.epochs) == (32, 9)
    assert settle_settings(before, {"trainer.devices": 2}).batches == 2


@pytest.mark.parametrize(
    ("epochs", "known"), [(1, 1), (30, 30), (0, None), (-1, None), (None, None), ("x", None), ("${a}", None)]
)
def test_the_length_of_a_run_where_it_is_known(epochs: object, known: int | None) -> None:
    assert settle_settings(Names([], {}, epochs=5), {"trainer.max_epochs": epochs}).epochs == known


@pytest.mark.parametrize(
    ("devices", "accumulated", "batches"),
    [(1, 1, 1), (4, 8, 32), (-1, 8, 8), (0, 2, 2), ("auto", 3, 3), (2, None, 2), (None, "${a}", 1)],
)
def test_the_passes_of_one_optimizer_step(devices: object, accumulated: object, batches: int) -> None:
    settings = {"trainer.devices": devices, "trainer.accumulate_grad_batches": accumulated}
    assert count_batches(settings.get) == batches


def test_the_names_of_a_run_as_shipped() -> None:
    names = get_default_names(get_groups())
    assert names.groups == get_groups()
    assert {"seed", "name", "trainer.devices", "optimizer.lr", "callbacks.checkpoint.monitor"} <= set(names.paths)
    assert not [path for path in names.paths if path.startswith("derived.")]
    assert [kind.text for kind in names.types("seed")] == ["int"]
    assert [kind.text for kind in names.types("optimizer.lr")] == ["float"]
    assert names.types("no.such") == ()
    assert (names.facts.kind, names.facts.task, names.facts.chosen["data"]) == (
        "images",
        "classification",
        "data=digits",
    )
    assert "callbacks" not in names.facts.chosen
    assert names.values("trainer.accumulate_grad_batches") == 1


def test_a_word_is_read_as_yaml_or_as_text() -> None:
    assert [parse_yaml_word(text) for text in ("3", "a", "[1, b]", "{a: [")] == [3, "a", [1, "b"], "{a: ["]
