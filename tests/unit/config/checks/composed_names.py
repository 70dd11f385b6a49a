"""Names and problems of composed configurations."""

from __future__ import annotations

from functools import cache

from mlscale.config.checks.check import check_config
from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.checks.suggestions import Names
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup
from mlscale.errors import MLScaleError


@cache
def names(*overrides: str) -> Names:
    request = parse_command_line("train", overrides)
    return CheckedConfig(compose_config(request), request.roots.groups, None, "train").names


def problems(words: list[str]) -> list[MLScaleError]:
    request = parse_command_line("train", words)
    origin = create_origin_lookup("train", request.overrides, request.roots)
    return check_config(compose_config(request), groups=request.roots.groups, origin=origin)
