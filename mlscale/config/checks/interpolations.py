"""Interpolations that can't be resolved. Values are never shown: they may be secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from mlscale.config.names.suggest import find_nearest, format_override
from mlscale.config.schema.roots import BASE_GROUPS
from mlscale.config.schema.target_nodes import join_path
from mlscale.config.schema.values import hide_env_default
from mlscale.errors import MLScaleError

INTERPOLATION = "an interpolation is written ${key.path} or ${oc.env:NAME}"

_ENV = re.compile(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_]\w*)\s*\}")
_ONE_KEY = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
_KEPT_OUT = "MLSCALE_SECRET_"  # how the variables begin that stand for the literal secrets of a run's config
_KEY = re.compile(r"Interpolation key '([^']*)' not found")
_RESOLVERS = ("oc.env", "oc.decode", "oc.select", "oc.create", "oc.dict.keys", "oc.dict.values")


def check_interpolations(cfg: DictConfig, paths: Sequence[str], where: Callable[[str], str]) -> Iterator[MLScaleError]:
    """Yield the problem of every leaf whose interpolation fails.

    Args:
        paths: key paths that exist, to suggest from.
        where: returns the file or override that set a key.
    """
    for path, parent, key in _iterate_interpolations(cfg, ""):
        # The raw text: `parent[key]` would resolve it.
        raw = str(parent._get_node(key)._value())
        try:
            parent[key]
        except InterpolationToMissingValueError:
            continue  # the missing value is reported at its own key
        except OmegaConfBaseException as error:
            # `data.seed: ${seed}` fails because `seed` does: a value typed for it would hide the cause.
            if not _repeats_interpolation(cfg, raw):
                yield _explain_failure(path, raw, error, cfg, paths, where)


def _repeats_interpolation(cfg: DictConfig, raw: str) -> bool:
    """Return whether a text is another key alone whose value is an interpolation itself, and is reported there."""
    match = _ONE_KEY.fullmatch(raw.strip())
    if match is None:
        return False
    head, _, last = match[1].rpartition(".")
    try:
        parent = OmegaConf.select(cfg, head) if head else cfg
    except OmegaConfBaseException:
        return False
    node = parent._get_node(last) if isinstance(parent, DictConfig) else None
    return isinstance(node, Node) and node._is_interpolation()


def resolve_value(cfg: DictConfig, path: str) -> object:
    """Return the value of a key in plain containers; None if it can't be resolved, which `check_interpolations`
    reports."""
    try:
        value = OmegaConf.select(cfg, path)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:
        return None


def _iterate_interpolations(node: DictConfig | ListConfig, path: str) -> Iterator[tuple[str, Any, Any]]:
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if not path and key == "hydra":
            continue
        name = join_path(path, str(key)) if isinstance(node, DictConfig) else f"{path}[{key}]"
        child: Any = node._get_node(key)
        if child._is_interpolation():
            yield name, node, key
        elif isinstance(child, (DictConfig, ListConfig)) and not child._is_none() and not child._is_missing():
            yield from _iterate_interpolations(child, name)


def _explain_failure(
    path: str,
    raw: str,
    error: OmegaConfBaseException,
    cfg: DictConfig,
    paths: Sequence[str],
    where: Callable[[str], str],
) -> MLScaleError:
    what, why, fix = f"'{path}' can't be resolved: {hide_env_default(raw)}", "", f"{path}=<value>"
    unset = [name for name in _ENV.findall(raw) if name not in os.environ]
    if unset:
        what = f"'{path}' needs the environment variable {unset[0]}, which is not set"
        fix = f"export {unset[0]}=<value>"
        if unset[0].startswith(_KEPT_OUT):
            why = "the run was given a secret here, and keeps none in its files"
            fix = f"export {unset[0]}=<the value that was given then>"
            fix += "\nlogger=none" if path.startswith("logger.") else ""
    elif isinstance(error, InterpolationKeyError) and (match := _KEY.search(str(error))):
        group, key = path.partition(".")[0], match[1]
        other = key.partition(".")[0]
        if other not in (key, group) and (key in paths or other in BASE_GROUPS) and not cfg.get(other):
            # The group that it takes the value from is `none`, or taken out by `~`.
            why = f"{other}=none has no '{key.rpartition('.')[2]}'"
            return MLScaleError(what, where=where(path), why=why, fix=f"{group}=none, or an option of {other}")
        why = f"unknown key '{key}'"
        if key.startswith("derived."):
            # Not among `paths`, since they are never set. They are listed: a name is hard to guess.
            names = [str(name) for name in cfg.get("derived") or ()]
            paths, why = [f"derived.{name}" for name in names], f"{why}; derived has {', '.join(names)}"
        close = find_nearest(key, paths)
        if removed := re.search(r"command line: (~.*)", where(key)):
            why = f"{removed[1]} takes '{key}' out"
            fix = fix if "." in key else f"leave {removed[1]} out"  # a run reads it itself
        elif key in paths:  # an option of its group has it, and this one has not
            fix = f"{key}=<value>"
        elif close and raw.strip() == "${" + match[1] + "}":
            fix = format_override(path, "${" + close + "}")
    elif isinstance(error, UnsupportedInterpolationType):
        name = raw.partition("${")[2].partition(":")[0]
        why = f"unknown resolver '{name}'"
        close = find_nearest(name, _RESOLVERS)
        fix = format_override(path, raw.replace(name, close, 1)) if close else fix
    elif isinstance(error, GrammarParseError):
        why = INTERPOLATION
    return MLScaleError(what, where=where(path), why=why, fix=fix)


def can_interpolate(text: str) -> bool:
    """Return whether OmegaConf can read the interpolations in a text."""
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    try:
        parse(text)
    except GrammarParseError:
        return False
    return True
