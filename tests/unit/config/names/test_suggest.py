"""The nearest name, and values in the grammars of Hydra and of a shell."""

from __future__ import annotations

import subprocess

import pytest

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.names.suggest import find_nearest, format_hydra_value, format_override


def test_nearest() -> None:
    assert find_nearest("devcies", ["devices", "device_stats"]) == "devices"
    assert find_nearest("Batch-Size", ["batch_size"]) == "batch_size"
    assert find_nearest("qqq", ["devices"]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (1, "1"), (0.1, "0.1"), ("x/y-z.txt", "x/y-z.txt"), ("5", "'5'"),
        ("true", "'true'"), ("a b", "a b"), ("a,b", "'a,b'"), ([1, "a"], "[1,a]"), ({"a": 1}, "{a:1}"),
        ("it's", "'it\\'s'"),
    ],
)  # fmt: skip
def test_values_are_shown_in_hydras_grammar(value: object, text: str) -> None:
    assert format_hydra_value(value) == text


@pytest.mark.parametrize(
    "value", ["plain", "a b", "5", "true", "a,b", "x&y", "{1..3}.tar", "it's", "a?b=c", "$HOME", ""]
)
def test_an_override_survives_the_shell_and_hydra(value: str) -> None:
    command = ["sh", "-c", f"printf %s {format_override('name', value)}"]
    word = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert compose_config(parse_command_line("train", [word])).name == value
