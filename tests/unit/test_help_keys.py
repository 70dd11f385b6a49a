"""Every key that a command's help prints can be typed as it stands there."""

from __future__ import annotations

import re

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.schema.roots import COMMAND_BASES, find_roots
from mlscale.help import format_config_command_help


def printed(verb: str) -> list[str]:
    """The settings that the help prints, with a value for those that have none."""
    lines = format_config_command_help(verb, find_roots()).splitlines()
    if "keys:" not in lines:
        return []
    block = lines[lines.index("keys:") + 1 :]
    block = block[: block.index("")]
    return [re.split(r"\s{2,}#", line.strip())[0].replace("<value>", "x") for line in block]


@pytest.mark.parametrize("verb", COMMAND_BASES)
def test_the_settings_of_the_help_can_be_typed(verb: str) -> None:
    words = printed(verb)
    request = parse_command_line(verb, words)
    problems = check_config(compose_config(request), groups=request.roots.get_command_groups(verb), command=verb)
    assert [str(problem) for problem in problems] == []
    assert len(words) == len({word.partition("=")[0] for word in words})
