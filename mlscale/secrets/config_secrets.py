"""Find secrets in a config, by the name of their key or by their format, and keep them out of every file.

A secret reaches a run by its environment. One that was typed into a config or on the command line is moved there:
`protect_config` replaces it by an interpolation, and the launcher passes the value to the ranks by their environment
only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlscale.secrets.secret_patterns import (
    MASK,
    find_secret_spans,
    has_known_format,
    is_harmless_value,
    is_secret_key,
    mask_spans,
)

PREFIX = "MLSCALE_SECRET_"
_ENV_DEFAULT = re.compile(r"^\$\{\s*oc\.env\s*:\s*(?P<name>\w+)\s*,\s*(?P<default>.*)\}$", re.DOTALL)
_ENV_NAME = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)")
_REQUIRED_NAME = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)\s*\}")
_OVERRIDE = re.compile(r"^(?P<key>[~+]{0,2}[^=]+)=(?P<value>.*)$", re.DOTALL)


def find_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the literals of `config` that are secrets, by key path (`logger.wandb.api_key`, `hosts[0].url`).

    Interpolations are not: they are resolved in memory only. The default in `${oc.env:NAME,default}` may be one.
    """
    return {
        path: value
        for path, key, value in _iterate_leaves(_convert_to_container(config), "", "")
        if _is_secret(key, value)
    }


def protect_config(
    config: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace every literal secret by an interpolation.

    Args:
        config: the composed config, as a DictConfig or plain containers. Not changed.
        environ: the environment that `${oc.env:NAME,default}` will see; this process's by default.

    Returns:
        The config in plain containers, with `${oc.env:MLSCALE_SECRET_LOGGER_WANDB_API_KEY}` and the like, and the
        environment that resolves them: for this process and its children, never for a file.
    """
    environment = os.environ if environ is None else environ
    moved: dict[str, str] = {}

    def replace_secret(path: str, key: str, value: object) -> Any:
        if not _is_secret(key, value):
            return value
        if not isinstance(value, str):
            # Variables are texts: `oc.decode` gives a number its type again.
            return "${oc.decode:" + _move_to_environment(path, str(value), moved) + "}"
        default = _ENV_DEFAULT.match(value)
        # The variable is set, so the secret in the default is not needed.
        if default and default["name"] in environment:
            return "${oc.env:" + default["name"] + "}"
        if default:
            return _move_to_environment(path, default["default"].strip().strip("'\""), moved)
        return "".join(
            part if part.startswith("${") else _move_to_environment(path, part, moved)
            for part in _split_interpolations(value)
        )

    protected: dict[str, Any] = _map_leaves(_convert_to_container(config), "", "", replace_secret)
    return protected, moved


def protect_yaml(text: str) -> str:
    """Return a config's text with its secrets replaced by `protect_config`; unchanged where it has none."""
    from omegaconf import DictConfig, OmegaConf

    config = OmegaConf.create(text)
    assert isinstance(config, DictConfig)
    return OmegaConf.to_yaml(OmegaConf.create(protect_config(config)[0])) if find_secrets(config) else text


def mask_overrides(overrides: Sequence[str]) -> list[str]:
    """Return overrides with masked secrets: `optimizer.api_key=abc` becomes `optimizer.api_key=***`."""
    return [_mask_override(override) for override in overrides]


def read_referenced_variables(config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables that `config` refers to by `${oc.env:…}` and that are set, with their values."""
    environment = os.environ if environ is None else environ
    texts = (value for _, _, value in _iterate_leaves(_convert_to_container(config), "", "") if isinstance(value, str))
    return {name: environment[name] for text in texts for name in _ENV_NAME.findall(text) if name in environment}


def list_required_variables(config: Mapping[str, Any]) -> list[str]:
    """Return the environment variables without which `config` can't be resolved: `${oc.env:…}` without a default."""
    texts = (value for _, _, value in _iterate_leaves(_convert_to_container(config), "", "") if isinstance(value, str))
    return sorted({name for text in texts for name in _REQUIRED_NAME.findall(text)})


def find_missing_secrets(config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the variables of `protect_config` that a stored `config` needs and that are not set; checked before
    a resume."""
    environment = os.environ if environ is None else environ
    texts = (value for _, _, value in _iterate_leaves(_convert_to_container(config), "", "") if isinstance(value, str))
    names = {name for text in texts for name in _ENV_NAME.findall(text)}
    return sorted(name for name in names if name.startswith(PREFIX) and name not in environment)


def _is_secret(key: str, value: object) -> bool:
    if isinstance(value, str):
        default = _ENV_DEFAULT.match(value)
        if default:
            return _is_secret(key, default["default"].strip().strip("'\""))
        literal = "".join(part for part in _split_interpolations(value) if not part.startswith("${"))
        # Hydra's marker of a missing value, no value, and a secret that is masked already.
        if not literal.strip() or literal in ("???", "null", MASK):
            return False
        return is_secret_key(key) or has_known_format(value) or bool(find_secret_spans(value))
    return is_secret_key(key) and not is_harmless_value(key, value)


def _iterate_leaves(node: object, path: str, key: str) -> Iterator[tuple[str, str, Any]]:
    """Yield (key path, deciding key, value) of every leaf; below a secret-like key, that key decides for all leaves."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _iterate_leaves(child, f"{path}.{name}" if path else str(name), _choose_key(key, str(name)))
    elif isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from _iterate_leaves(child, f"{path}[{index}]", key)
    else:
        yield path, key, node


def _map_leaves(node: object, path: str, key: str, replace: Callable[[str, str, object], object]) -> Any:
    if isinstance(node, Mapping):
        return {
            name: _map_leaves(child, f"{path}.{name}" if path else str(name), _choose_key(key, str(name)), replace)
            for name, child in node.items()
        }
    if isinstance(node, list | tuple):
        return [_map_leaves(child, f"{path}[{index}]", key, replace) for index, child in enumerate(node)]
    return replace(path, key, node)


def _choose_key(parent: str, name: str) -> str:
    """Return the key that decides: the parent in `credentials: {user: …}`, but not for `_target_` and the like."""
    return parent if is_secret_key(parent) and not name.startswith("_") else name


def _move_to_environment(path: str, value: str, moved: dict[str, str]) -> str:
    name = PREFIX + re.sub(r"[^A-Z0-9]+", "_", path.upper()).strip("_")
    unique, count = name, 1
    # Two key paths may give the same name (`a.b`, `a_b`): different values need different variables.
    while unique in moved and moved[unique] != value:
        count += 1
        unique = f"{name}_{count}"
    moved[unique] = value
    return "${oc.env:" + unique + "}"


def _split_interpolations(value: str) -> list[str]:
    """Split `value` into literals and interpolations; nested interpolations are not split."""
    parts, start, depth, position = [], 0, 0, 0
    while position < len(value):
        if value.startswith("${", position):
            if depth == 0 and position > start:
                parts.append(value[start:position])
                start = position
            depth += 1
            position += 1
        elif value[position] == "}" and depth:
            depth -= 1
            if depth == 0:
                parts.append(value[start : position + 1])
                start = position + 1
        position += 1
    if start < len(value):
        parts.append(value[start:])
    return parts


def _mask_override(override: str) -> str:
    match = _OVERRIDE.match(override)
    if not match:
        return override
    key, value = match["key"], match["value"]
    words = re.split(r"[.@\[\]]+", key.lstrip("+~"))
    if any(is_secret_key(word) for word in words) and not value.strip().startswith("${"):
        return f"{key}={MASK}" if value not in ("", "null", "true", "false") else override
    return f"{key}={mask_spans(value, find_secret_spans(value))}"


def _convert_to_container(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain containers; of a DictConfig without resolving interpolations, whose values must stay in memory."""
    from omegaconf import OmegaConf

    if OmegaConf.is_config(config):
        plain = OmegaConf.to_container(config, resolve=False)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}
    return dict(config)
