"""Every key that a command's help prints can be typed as it stands there."""

from __future__ import annotations

import re

import pytest

from mlscale.config.checks.check import check
from mlscale.config.composition.argv import parse
from mlscale.config.composition.compose import compose
from mlscale.config.composition.roots import VERB_CONFIGS, find_roots
from mlscale.help import of_working_command


def printed(verb: str) -> list[str]:
    """The settings that the help prints, with a value for those that have none."""
    lines = of_working_command(verb, find_roots()).splitlines()
    if "keys:" not in lines:
        return []
    block = lines[lines.index("keys:") + 1 :]
    block = block[: block.index("")]
    return [re.split(r"\s{2,}#", line.strip())[0].replace("<value>", "x") for line in block]


@pytest.mark.parametrize("verb", VERB_CONFIGS)
def test_the_settings_of_the_help_can_be_typed(verb: str) -> None:
    words = printed(verb)
    request = parse(verb, words)
    problems = check(compose(request), groups=request.roots.groups_of(verb), verb=verb)
    assert [str(problem) for problem in problems] == []
    assert len(words) == len({word.partition("=")[0] for word in words})
