"""Names more than a plain typo away: the value, or the lack of any other name, makes one likely."""

from __future__ import annotations

import pytest

from mlscale.config.names.name_distance import is_extension
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.value_types import FLOAT, STR, make_literal
from mlscale.config.suggestions.config_names import Names
from mlscale.config.suggestions.distant_names import find_distant_keys, find_distant_options, find_group_of_value

TYPES = {"like": STR, "mode": make_literal("min", "max"), "seed": FLOAT, "data.root": STR}
GROUPS = {"data": ["diabetes", "none"], "task": ["classification", "none"], "debug": ["fast", "limit", "none"]}
NAMES = Names(list(TYPES), GROUPS, types=lambda path: [TYPES[path]] if path in TYPES else ())


@pytest.mark.parametrize(
    ("typed", "value", "fix"),
    [
        ("da_w", "diabetes", "data=diabetes"),
        ("pak", "classification", "task=classification"),
        # An option of several groups tells nothing, and a far name is no typo of the group.
        ("pak", "none", None),
        ("optimiser", "diabetes", None),
        ("da_w", 3, None),
    ],
)
def test_a_value_that_one_group_alone_has_names_the_group(typed: str, value: object, fix: str | None) -> None:
    advice = find_group_of_value(typed, value, NAMES)
    if typed == "pak" and value == "none":
        assert advice is None or advice.fix == "task=none"
    else:
        assert (advice.fix if advice else None) == fix


@pytest.mark.parametrize(("typed", "fix"), [("liok", "like='1'"), ("mofed", "mode=<min or max>"), ("nope", None)])
def test_a_short_key_two_edits_away(typed: str, fix: str | None) -> None:
    advice = find_distant_keys(typed, "1", NAMES)
    assert (advice.fix.strip('"') if advice else None) == fix


def test_swapped_letters_around_a_missing_one() -> None:
    names = Names(["augment.scale", "augment.shift"], {}, types=lambda path: [FLOAT])
    advice = find_distant_keys("augment.slce", 0.1, names)
    assert advice is not None
    assert advice.fix == "augment.scale=0.1"


def test_other_digits_are_another_name() -> None:
    assert find_distant_options("fp7", ["fp16", "fp32", "bf16"]) == []


def test_an_option_two_edits_away() -> None:
    assert find_distant_options("fsi", GROUPS["debug"]) == ["fast"]
    assert find_distant_options("zzz", GROUPS["debug"]) == []


def test_swapped_letters_are_nearer_than_a_missing_one() -> None:
    assert find_nearest("AdaWm", ["Adam", "AdamW", "Adamax"]) == "AdamW"


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("my_resnet", "resnet", True),
        ("resnet50", "resnet", True),
        ("resnett", "resnet", False),
        ("resnet", "vit", False),
    ],
)
def test_a_name_with_a_word_added_is_another_name(name: str, other: str, expected: bool) -> None:
    assert is_extension(name, other) is expected
