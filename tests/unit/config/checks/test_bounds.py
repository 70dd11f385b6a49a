"""Bounds of single values, at their ends, and of what other programs mean by the same key."""

from __future__ import annotations

import math
from typing import Any

import pytest
from omegaconf import OmegaConf

import mlscale
from mlscale.config.checks.bounds import check_single_process
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.value_ranges import RANGES, _part
from mlscale.config.schema.value_types import (
    FLOAT,
    INT,
    allow_nonfinite,
    at_least,
    is_finite,
    make_literal,
    make_tuple_type,
    make_union,
    parse_annotation,
    parse_type_word,
)
from mlscale.errors import MLScaleError

STRATEGIES = "mlscale.train.strategies"


@pytest.mark.parametrize(
    ("path", "inside", "outside"),
    [
        ("seed", [0, 2**32 - 1], [2**32, -1, True]),
        ("precision.loss_scale", [1, 0.5], [0, math.nan]),
        ("precision.growth_interval", [1], [0, 1.5]),
        ("precision.max_skipped", [1], [0]),
        ("launch.max_restarts", [0], [-1]),
        ("launch.timeout_s", [0.5], [0]),
        ("strategy.timeout", [5], [0]),
        ("drift.fdr", [0.01, 0.99], [0, 1, math.inf]),
        ("alert.tries", [1, 100], [0, 101]),
        ("alert.hysteresis", [0, 1], [1.1]),
        ("window.held_out", [0.5], [0, 1]),
        ("gate.min_kappa", [-1, None], [1.5]),
        ("min_agreement", [0.999, 1], [99.9]),
        ("compress.int8.max_accuracy_drop", [0, 0.02], [5]),
    ],
)
def test_the_bounds_of_a_setting_are_in_its_comment(path: str, inside: list[Any], outside: list[Any]) -> None:
    fields = [field for option in get_shipped_fields().options for field in option.fields if field.path == path]
    kinds = [field.type for field in fields if field.word]
    assert kinds
    for kind in kinds:
        assert kind is not None
        assert all(map(kind.accepts, inside))
        assert not any(map(kind.accepts, outside))


def test_bounds_are_part_of_the_schema() -> None:
    schemas = [parse_type_word(f"float {word}").schema for word in ("≥ 1", "> 0", "from 0 to 1", "between 0 and 1")]  # type: ignore[union-attr]
    number = {"type": "number"}
    assert schemas == [
        {**number, "minimum": 1},
        {**number, "exclusiveMinimum": 0},
        {**number, "minimum": 0, "maximum": 1},
        {**number, "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    ]


@pytest.mark.parametrize(
    ("target", "devices", "problems"),
    [(f"{STRATEGIES}.single", 2, 1), (f"{STRATEGIES}.single", 1, 0), (f"{STRATEGIES}.ddp", 2, 0), (None, 2, 0)],
)
def test_a_single_process_has_one_device(target: str | None, devices: int, problems: int) -> None:
    cfg = OmegaConf.create({"strategy": {"_target_": target} if target else None})
    found = list(check_single_process(cfg, devices))
    assert [problem.fix for problem in found] == ["trainer.devices=1\nstrategy=ddp"] * problems


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("data.batch_size", [1, 64, None], [0, -1, 1.0, True, "auto"]),
        ("data.workers", [0, 3, "auto"], [-1, 0.5, None, "many"]),
        ("trainer.accumulate_grad_batches", [1], [0, None, True]),
        ("trainer.devices", [1, 8, -1, "auto", "1", "2"], [0, -2, "0", "two", "-1", [0], 1.0]),
        ("trainer.limit_train_batches", [10, 0.1, 1.0, None], [0, 0.0, -1, 1.5, 2.0, -0.1, True, "all"]),
        ("trainer.overfit_batches", [0, 1, 0.5, 1.0, 0.0], [-1, 1.1, None]),
        ("trainer.val_check_interval", [1, 100, 0.25, 1.0, "00:01:00:00", {"hours": 1}, None], [0, 0.0, 1.5, "1:00"]),
        ("trainer.check_val_every_n_epoch", [1, None], [0, 0.5]),
        ("trainer.max_steps", [-1, 0, 5], [-2, None]),
        ("trainer.plugins", [{"a": 1}, [{"a": 1}], [], None], ["name", ["name"], 1]),
    ],
)
def test_ranges_of_well_known_keys(key: str, good: list[object], bad: list[object]) -> None:
    assert [value for value in good if not RANGES[key].accepts(value)] == []
    assert [value for value in bad if RANGES[key].accepts(value)] == []


@pytest.mark.parametrize("least", [-1, 0, 3])
def test_whole_numbers_from_a_least_one(least: int) -> None:
    kind = at_least(least)
    assert [kind.accepts(value) for value in (least - 1, least, least + 1)] == [False, True, True]
    assert not any(kind.accepts(value) for value in (True, 5.0, "5", None))


@pytest.mark.parametrize("zero", [True, False])
def test_parts_of_a_whole(zero: bool) -> None:
    kind = _part(zero=zero)
    values: list[object] = [-0.1, 0.0, 1e-9, 0.5, 1.0, 1.1, 0, 1, "0.5", math.nan, None]
    assert [value for value in values if kind.accepts(value)] == [0.0] * zero + [1e-9, 0.5, 1.0]
    assert kind.schema == {"type": "number", "maximum": 1, ("minimum" if zero else "exclusiveMinimum"): 0}
    assert kind.text == "float ≤ 1"


def test_types_have_names_and_schemas() -> None:
    assert (at_least(3).text, at_least(3).schema) == ("int ≥ 3", {"type": "integer", "minimum": 3})
    part = RANGES["trainer.overfit_batches"].schema["anyOf"][1]  # type: ignore[index]
    assert part == {"type": "number", "maximum": 1, "minimum": 0}
    part = RANGES["trainer.val_check_interval"].schema["anyOf"][1]  # type: ignore[index]
    assert part == {"type": "number", "maximum": 1, "exclusiveMinimum": 0}
    assert make_union(INT) is INT
    both = make_union(INT, FLOAT, INT)
    assert (both.text, both.schema) == ("int or float", {"anyOf": [INT.schema, FLOAT.schema, INT.schema]})
    words = make_literal(None, 1, "a")
    assert (words.text, words.schema) == ("null or 1 or a", {"enum": [None, 1, "a"]})
    assert not words.accepts(True)
    pair = make_tuple_type(INT, None)
    assert (pair.text, pair.accepts([1, object()]), pair.accepts([1])) == ("list[int, any]", True, False)
    assert pair.schema == {"type": "array", "prefixItems": [INT.schema, {}], "minItems": 2}
    numbers = parse_annotation("list[int]")
    assert numbers is not None
    assert not numbers.accepts([1, "x"])
    assert (numbers.text, numbers.schema) == ("list[int]", {"type": "array", "items": INT.schema})


def test_numbers_that_are_not_finite() -> None:
    finite: list[object] = [1.5, "nan", [1, {"a": 2.0}], None, True]
    assert all(is_finite(value) for value in finite)
    other: list[object] = [math.inf, [1, math.nan], {"a": [{"b": -math.inf}]}]
    assert not any(is_finite(value) for value in other)
    assert not FLOAT.accepts(math.inf)
    assert allow_nonfinite(FLOAT).accepts(math.nan)
    assert not allow_nonfinite(INT).accepts(math.inf)
    floats = parse_annotation("dict")
    assert floats is not None
    assert allow_nonfinite(floats).accepts({"a": math.inf})


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("Optional[Tensor]", None), ("Literal[a.b]", None), ("Literal['a', X]", None), ("list[Tensor]", "list"),
        ("tuple[int]", "list[int]"), ("tuple[Tensor, int]", "list[any, int]"), ("Final[int]", "int"),
        ("tuple[int, ...]", "list[int]"), ("dict[str, int]", "dict"), ("1", None), ("int & str", None),
        ("a.b.int", "int"),
    ],
)  # fmt: skip
def test_what_annotations_stand_for(annotation: str, text: str | None) -> None:
    kind = parse_annotation(annotation)
    assert (kind.text if kind else None) == text


def test_words_of_comments() -> None:
    choice = parse_type_word("one of max, min")
    assert choice is not None
    assert (choice.text, choice.accepts("max"), choice.accepts("one of max")) == ("max or min", True, False)
    kind = parse_type_word("float or null or auto")
    assert kind is not None
    values: list[object] = [None, 1.5, "auto", "null", []]
    assert [value for value in values if kind.accepts(value)] == [None, 1.5, "auto"]


@pytest.mark.parametrize(
    ("recipe", "word"),
    [
        ("vit", "model.depth=0"),
        ("vit", "model.heads=0"),
        ("resnet", "model.widths=[16,0]"),
        ("resnet", "callbacks.checkpoint.keep=-2"),
        ("resnet", "data.image_size=-3"),
        ("gpt", "data.length=0"),
    ],
)
def test_a_comment_bounds_a_number(recipe: str, word: str) -> None:
    with pytest.raises(MLScaleError, match=f"'{word.partition('=')[0]}' must be .*≥"):
        mlscale.compose([f"recipe={recipe}", word])
