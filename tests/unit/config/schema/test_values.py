"""Single values: what is meant by a text, what may be shown of it, and what is suggested."""

from __future__ import annotations

import math
import shlex

import pytest

from mlscale.config.schema.documented_fields import Field
from mlscale.config.schema.value_types import FLOAT, INT, STR, Type, parse_annotation, parse_type_word
from mlscale.config.schema.values import (
    check_resolved_value,
    check_value_type,
    convert_value,
    create_missing_error,
    hide_env_default,
)
from mlscale.config.signatures.signatures import NO_LITERAL, Kind, Parameter
from mlscale.errors import MLScaleError


def kind(word: str) -> Type:
    found = parse_annotation(word) or parse_type_word(word)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "word", "form"),
    [
        ("2", "int", 2), ("1,000", "int", 1000), ("1,000,000", "int", 1_000_000), ("10,00", "int", None),
        ("0,5", "float", 0.5), ("30s", "int", None), ("1k", "int", 1000), ("3x", "int", None), ("50%", "float", 0.5),
        ("0,5%", "float", 0.005), (" '3' ", "int", 3), ("yes", "bool", True), ("Off", "bool", False),
        ("maybe", "bool", None), (2.0, "int", 2), (2.5, "int", None), (3, "str", "3"), (1, "bool", True),
        (0, "bool", False), (2.5, "str", "2.5"), (True, "int", None), ([4], "int", 4), ([4, 5], "int", None),
        (4, "list[int]", [4]), (["4", 5], "list[int]", [4, 5]), (["a", 5], "list[int]", None),
        ("atuo", "int or auto", "auto"), ("somewhat", "int or auto", None), (math.inf, "str", None),
        (None, "int", None), ("x", "list[str]", ["x"]), (["${x}"], "list[int]", ["${x}"]),
        ("[a, 'b c']", "list[str]", ["a", "b c"]), ("a]", "list[str]", ["a]"]),
        ([True, "a", 2.5, 3], "list[str]", ["true", "a", "2.5", "3"]), (True, "list[str]", ["true"]),
    ],
)  # fmt: skip
def test_what_a_value_may_mean(value: object, word: str, form: object) -> None:
    assert convert_value(value, [kind(word)]) == ((True, form) if form is not None else (False, value))


@pytest.mark.parametrize(
    ("value", "path", "form"),
    [
        ("90s", "max_minutes", 1.5), ("90s", "every_s", 90), ("2h", "seconds", 7200), ("250ms", "poll_s", 0.25),
        ("1d", "a.hours", 24), ("5m", "a.timeout_s", 300), ("4GB", "cache_gb", 4), ("512mb", "cache_gb", 0.512),
        ("2M", "trainer.max_steps", 2_000_000), ("10K", "data.batch_size", 10_000), ("100ms", "clip", None),
        ("5min", "trainer.max_steps", None), ("1k", "max_hours", None), ("30m", "classes", None),
    ],
)  # fmt: skip
def test_a_number_with_a_unit_is_converted_to_the_unit_of_the_key(value: str, path: str, form: object) -> None:
    assert convert_value(value, [FLOAT], path) == ((True, form) if form is not None else (False, value))


@pytest.mark.parametrize("value", ["${x}", "???", {"_target_": "a.B"}, ["${x}", 1], {"a": {"b": "${x}"}, "c": 1}])
def test_what_is_known_later_is_left_alone(value: object) -> None:
    """A text may become a number; a list or a dictionary is never suggested for one."""
    assert convert_value(value, [INT]) == (isinstance(value, str), value)
    assert list(check_value_type("a.b", value, [INT], None, None, str)) == []


def test_a_form_is_of_all_types() -> None:
    positive = Type("int ≥ 1", lambda value: isinstance(value, int) and value > 0, {})
    assert convert_value("3", [INT, positive]) == (True, 3)
    assert convert_value("-3", [INT, positive]) == (False, "-3")
    assert convert_value(3, [INT, positive]) == (True, 3)
    assert convert_value(3, []) == (True, 3)
    # What is meant follows from the first.
    assert convert_value("atuo", [kind("int or auto"), STR]) == (True, "auto")
    assert convert_value(["${x}"], [kind("list[int]"), INT]) == (False, ["${x}"])


def reported(value: object, *types: Type) -> MLScaleError:
    (problem,) = check_value_type("own.key", value, types, None, None, lambda path: f"at {path}")
    return problem


@pytest.mark.parametrize(
    ("value", "word", "what", "fix"),
    [
        ("2", "int", "int, not '2'", "own.key=2"),
        ("fast", "float", "float, not the text 'fast'", ""),
        (1.5, "int", "int, not 1.5", ""),
        (True, "int", "int, not true", ""),
        ({"a": 1}, "int", "int, not {a:1}", ""),
        ("maximum", "one of max, min", "max or min, not the text 'maximum'", ""),
        (math.nan, "float", "a finite number, not nan", ""),
        ([1, math.inf], "list[float]", "of finite numbers, not [1,inf]", ""),
    ],
)
def test_a_value_of_another_type(value: object, word: str, what: str, fix: str) -> None:
    problem = reported(value, kind(word))
    assert (problem.what, problem.fix, problem.where) == (
        f"'own.key' must be {what}",
        fix and shlex.quote(fix),
        "at own.key",
    )


@pytest.mark.parametrize(
    ("value", "word", "of_field", "of_parameter", "fix"),
    [
        ("fast", "int", 3, 4, ""),
        ("fast", "int", "${x}", "slow", ""),
        ("fast", "int", None, NO_LITERAL, ""),
        ("maximum", "one of max, min", "max", "min", ""),
        ({"a": 1}, "int", 3, 4, ""),
        ("5", "int", 3, 4, "own.key=5"),
    ],
)
def test_a_default_is_not_what_was_meant(
    value: object, word: str, of_field: object, of_parameter: object, fix: str
) -> None:
    field, parameter = (
        Field("own.key", word, "the text", of_field),
        Parameter("key", Kind.KEYWORD_ONLY, False, word, of_parameter),
    )
    (problem,) = check_value_type("own.key", value, [kind(word)], field, parameter, str)
    assert (problem.fix, problem.why) == (fix and shlex.quote(fix), "the text")
    (problem,) = check_resolved_value("own.key", "${x}", value, [kind(word)], field, parameter, str)
    assert (problem.fix, problem.why) == (fix and shlex.quote(fix), "the text")


def test_the_first_type_that_is_not_met_is_reported() -> None:
    assert "must be str" in reported(3, INT, STR).what
    assert "must be int" in reported("x", INT, FLOAT).what
    assert list(check_value_type("own.key", 3, [INT, FLOAT], None, None, str)) == []


def resolved(raw: str, value: object, *types: Type) -> list[MLScaleError]:
    return list(check_resolved_value("own.key", raw, value, types, None, None, str))


@pytest.mark.parametrize(
    ("raw", "value", "what", "fix"),
    [
        ("${oc.env:N}", "12", "${oc.env:N} is '12'", "${oc.decode:${oc.env:N}}"),
        ("${oc.env:N}", "1234567", "${oc.env:N} is '1234567'", "${oc.decode:${oc.env:N}}"),
        ("${oc.env:N,12345678}", "12345678", "${oc.env:N,…} is a text of 8 characters", "${oc.decode:"),
        ("${oc.env:TOKEN}", "a-long-secret", "is a text of 13 characters", ""),
        # oc.decode reads none of these as a number.
        ("${oc.env:N}", "1,000", "${oc.env:N} is '1,000'", ""),
        ("${oc.env:N}", "30s", "${oc.env:N} is the text '30s'", ""),
        ("${oc.env:N}", "${x}", "${oc.env:N} is", ""),
        ("${oc.env:N}", "[1", "${oc.env:N} is '[1'", ""),
        ("${seed}", "seven", "${seed} is the text 'seven'", ""),
        ("${seed}", 1.5, "${seed} is 1.5", ""),
        ("${name}", "a-long-text", "${name} is a text of 11 characters", ""),
    ],
)
def test_what_an_interpolation_gives(raw: str, value: object, what: str, fix: str) -> None:
    (problem,) = resolved(raw, value, INT)
    assert what in problem.what
    assert fix in problem.fix if fix else problem.fix == ""
    assert bool(problem.why) == ("oc.decode" in fix)
    if isinstance(value, str) and len(value) >= 8:
        assert value not in f"{problem.what}{problem.why}" + problem.fix.replace(raw, "")


def test_what_the_environment_holds_is_not_part_of_a_fix() -> None:
    for raw, value in (("${oc.env:M}", "maxx"), ("${name}", "maximise")):
        (problem,) = resolved(raw, value, kind("one of max, min, maximised"))
        assert problem.fix == ""
    (problem,) = resolved("${name}", "maxx", kind("one of max, min"))
    assert problem.fix == "own.key=max"


def test_an_interpolation_that_fits_or_is_not_known_yet() -> None:
    assert resolved("${a}", 3, INT) == resolved("${a}", None, INT) == resolved("${a}", "x") == []


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("${oc.env:NAME,secret}", "${oc.env:NAME,…}"), ("${ oc.env : NAME , a b}", "${ oc.env : NAME ,…}"),
        ("${oc.env:NAME}", "${oc.env:NAME}"), ("a ${oc.env:A,1} ${oc.env:B,2}", "a ${oc.env:A,…} ${oc.env:B,…}"),
        ("${other:NAME,x}", "${other:NAME,x}"),
    ],
)  # fmt: skip
def test_a_default_of_the_environment_is_not_shown(raw: str, shown: str) -> None:
    assert hide_env_default(raw) == shown


def test_a_missing_key_names_its_type() -> None:
    parameter = Parameter("b", Kind.KEYWORD_ONLY, True, "int")
    assert (
        create_missing_error("a.b", Field("a.b", "str", "the text", None), "here", parameter).fix == "a.b=<str or null>"
    )
    assert create_missing_error("a.b", None, "here").fix == "a.b=<value>"
    assert create_missing_error("a.b", None, "here", parameter).fix == "a.b=<int>"
    assert create_missing_error("a.b", None, "here").what == "'a.b' is not set"
