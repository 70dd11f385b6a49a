"""Check small configs that are written down, not composed: a case takes milliseconds."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from omegaconf import DictConfig, OmegaConf

from mlscale.config.checks.check import check_config
from mlscale.config.schema.roots import find_roots

FILE = "my.yaml"


@cache
def get_groups() -> dict[str, list[str]]:
    """Return the shipped groups with their options."""
    return {group: [*options] for group, options in find_roots().groups.items()}


def parse_config(text: str) -> DictConfig:
    """Return the config of a YAML text."""
    cfg = OmegaConf.create(text)
    assert isinstance(cfg, DictConfig)
    return cfg


def find_problems(
    text: str, in_file: Collection[str] = (), command: str = "train", left_over: dict[str, list[str]] | None = None
) -> str:
    """Return the messages of a config: what is below the keys `in_file` was set in a file, the rest was typed."""

    def origin(path: str) -> str:
        is_in_file = any(f"{path}.".startswith(f"{key}.") for key in in_file)
        return FILE if is_in_file else f"command line: {path}"

    problems = check_config(
        parse_config(text), groups=get_groups(), origin=origin, command=command, left_over=left_over
    )
    return "\n".join(map(str, problems))
