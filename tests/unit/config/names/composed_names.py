"""Names and problems of composed configurations."""

from __future__ import annotations

from functools import cache

from mlscale.config.checks.check import check_config
from mlscale.config.checks.checked_config import collect_names
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup
from mlscale.config.suggestions.config_names import Names


@cache
def names(*overrides: str) -> Names:
    request = parse_command_line("train", overrides)
    return collect_names(compose_config(request), groups=request.roots.groups)


def problems(words: list[str]) -> list[str]:
    request = parse_command_line("train", words)
    origin = create_origin_lookup("train", request.overrides, request.roots)
    return [
        str(problem) for problem in check_config(compose_config(request), groups=request.roots.groups, origin=origin)
    ]
