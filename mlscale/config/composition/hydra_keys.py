"""Hydra's own settings that have no effect here. None is ignored silently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mlscale.config.schema.local_paths import create_address_error, is_address
from mlscale.errors import MLScaleError

SEARCHED = "only a sweeper that searches draws from an interval: hydra/sweeper=optuna, with -m"
_OF_A_SWEEP = re.compile(r"hydra\.(sweep\.dir|sweeper|launcher)(\..*)?")


def check_effect(word: str, *, multirun: bool) -> Iterator[MLScaleError]:
    """Yield the error for an override of Hydra's own settings, unless it has an effect."""
    typed, _, value = word.lstrip("+~").partition("=")
    key = typed.split("@", 1)[0].replace("/", ".")
    if key != "hydra" and not key.startswith("hydra."):
        return
    where = f"command line: {word.lstrip('+')}"
    if _OF_A_SWEEP.fullmatch(key):
        if not multirun:
            why = "it belongs to a sweep, which -m starts"
            yield MLScaleError(f"'{typed}' has no effect", where=where, why=why)
        elif key == "hydra.launcher" and value != "basic":  # a plugin's jobs are in processes of their own, unseen here
            why = "jobs of -m run one after another, or with launch=slurm in SLURM; a plugin's would miss in the table"
            yield MLScaleError(f"'{typed}' can't be chosen", where=where, why=why, fix=f"leave {typed}={value} out")
        if key == "hydra.sweep.dir" and is_address(value):
            yield create_address_error(key, value, where)
        return
    yield _create_effect_error(typed, where)


def check_file_content(content: Mapping[str, object], shown: str) -> Iterator[MLScaleError]:
    """Yield the errors for Hydra's own settings in a config file whose package is `_global_`.

    Args:
        content: what the file holds, in plain containers.
        shown: the file as messages name it.
    """
    defaults = content.get("defaults")
    for entry in defaults if isinstance(defaults, list) else []:
        for key in entry if isinstance(entry, dict) else []:
            name = str(key).rpartition(" ")[2].lstrip("/")
            if name.startswith("hydra/") and not _OF_A_SWEEP.fullmatch(name.replace("/", ".")):
                yield _create_effect_error(name, f"{shown}: defaults")
    for key in _iterate_paths("hydra", content.get("hydra", {})):
        if not _OF_A_SWEEP.fullmatch(key):
            yield _create_effect_error(key, f"{shown}: {key}")


def _iterate_paths(path: str, node: object) -> Iterator[str]:
    if not isinstance(node, dict):
        yield path
        return
    for key, value in node.items():
        yield from _iterate_paths(f"{path}.{key}", value)


def _create_effect_error(typed: str, where: str) -> MLScaleError:
    why = "mlscale makes the folders and logs of a run itself; runs_dir, name and --config-dir choose them"
    return MLScaleError(f"'{typed}' has no effect", where=where, why=why, fix=f"leave {typed} out")
