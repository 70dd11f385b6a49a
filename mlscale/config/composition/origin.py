"""The file or override that set each key of a composed config.

Hydra does not keep this, so its steps are taken once more, file by file. Hydra's private API for that lives only here,
under a contract test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mlscale.config.checks.checked_config import COMMAND_LINE, STORED_CONFIG
from mlscale.config.composition.compose import VERSION_BASE, SearchPath
from mlscale.config.schema.roots import Roots, get_shipped_folder
from mlscale.config.schema.target_nodes import join_path

_COLUMN = 48  # where the comments of an annotated config begin, unless a line is longer


def create_origin_lookup(command: str, overrides: Sequence[str], roots: Roots) -> Callable[[str], str]:
    """Return a function from key path to origin ("" for none), which does its work when it is first called.

    Args:
        overrides: as they were given to Hydra.
        roots: the search path that the config was composed with.
    """

    @cache
    def load_origins() -> dict[str, str]:
        SearchPath.roots = roots
        # Hydra's grammar of defaults lists depends on its version base, which is otherwise only set while it composes.
        version.setbase(VERSION_BASE)
        return collect_origins(
            command, overrides, ConfigLoaderImpl(create_config_search_path(str(get_shipped_folder("conf"))))
        )

    # What was typed needs no second look at the files, and is where most mistakes are.
    typed = {item[2:].partition("=")[0]: COMMAND_LINE + item[2:] for item in overrides if item.startswith("++")}
    return lambda path: typed.get(path) or locate_key(load_origins(), path)


def collect_origins(config_name: str, overrides: Sequence[str], loader: ConfigLoaderImpl) -> dict[str, str]:
    """Return the origin of every leaf by key path; what comes later in the defaults list, and then the overrides, wins.

    Args:
        loader: a Hydra config loader, e.g. ``GlobalHydra.instance().config_loader()``.

    Returns:
        ``{"optimizer.lr": "recipes/optimizer/resnet_sgd.yaml", "trainer.devices": "command line: trainer.devices=8"}``.
    """
    _, repo = loader._parse_overrides_and_create_caching_repo(config_name, list(overrides))
    defaults = loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN)
    labels: dict[str, str] = {}
    # In the order of the merge: a later file overwrites the label of an earlier one.
    for default in defaults.defaults:
        if default.config_path is None or default.config_path.split("/")[0] in ("hydra", "_dummy_empty_config_"):
            continue
        loaded = loader._load_single_config(default, repo)
        label = _build_label(str(loaded.path), default.config_path)
        _record_origin(labels, _convert_to_plain(loaded.config), "", label)
    for override in defaults.config_overrides:
        _apply_override(labels, override)
    return labels


def locate_key(labels: Mapping[str, str], path: str) -> str:
    """Return the origin of a key; for a node that of its first key, for a key inside a list that of the list; "" for
    none.
    """
    if path in labels:
        return labels[path]
    below = next((label for key, label in labels.items() if key.startswith((f"{path}.", f"{path}["))), None)
    if below is not None:
        return below
    # One level up: a list is a leaf in `found`, so a key inside it has the list's origin.
    head = path[: max(path.rfind("."), path.rfind("["), 0)]
    return locate_key(labels, head) if head else ""


def annotate_config(cfg: DictConfig, origin: Callable[[str], str]) -> str:
    """Return the config as YAML, with the origin of each leaf in a comment after it.

    `cfg` is masked first where it may hold secrets.
    """
    tree = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(tree, dict)
    lines = [
        f"{text:<{_COLUMN}}  # {label}" if label else text
        for text, label in _format_lines({key: value for key, value in tree.items() if key != "hydra"}, "", "", origin)
    ]
    return "\n".join(lines) + "\n"


def list_origins(cfg: DictConfig, origin: Callable[[str], str]) -> dict[str, str]:
    """Return the origin of each leaf of a config by its key path; leaves without one, which mlscale fills in, are left
    out.
    """
    tree = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(tree, dict)
    leaves = (path for key, value in tree.items() if key != "hydra" for path in _list_leaves(value, str(key)))
    return {path: label for path in leaves if (label := origin(path))}


def _list_leaves(value: object, path: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _list_leaves(item, join_path(path, str(key)))
    else:
        yield path


def _format_lines(
    tree: Mapping[Any, Any], path: str, indent: str, origin: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = join_path(path, str(key))
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:", ""
            yield from _format_lines(value, name, indent + "  ", origin)
        else:
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
            yield f"{indent}{key}: {text.removesuffix('...' + chr(10)).strip()}", origin(name)


def _build_label(source: str, config_path: str) -> str:
    """Return `conf/optimizer/sgd.yaml` for a shipped file, `./conf/model/mine.yaml` for one in the working folder."""
    name = config_path.removesuffix(".yaml") + ".yaml"
    for shipped in ("conf", "recipes"):
        if source.removeprefix("shipped://") == str(get_shipped_folder(shipped)):
            return f"{shipped}/{name}"
    scheme, _, folder = source.rpartition("://")
    if scheme == "pkg":
        return f"{folder}: {name}"
    if scheme == "structured":
        if config_path == "base/frozen":
            return STORED_CONFIG
        return config_path.replace("/", "=")
    file = Path(folder) / name
    return f"./{file.relative_to(Path.cwd())}" if file.is_relative_to(Path.cwd()) else str(file)


def _record_origin(labels: dict[str, str], tree: object, path: str, label: str) -> None:
    """Note the origin of every leaf of `tree`, merged in at `path`. A list is a leaf: a merge replaces it whole."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if path or key != "hydra":
                _record_origin(labels, value, join_path(path, str(key)), label)
        if tree or any(key.startswith(f"{path}.") for key in labels):
            return  # an empty dictionary changes nothing where there is one
    parent = path
    # A parent that was a leaf (null, or a list) has become a node: its own label is no longer true.
    while parent := parent.rpartition(".")[0]:
        labels.pop(parent, None)
    _drop_origins(labels, path)
    labels[path] = label


def _convert_to_plain(config: object) -> object:
    """Return plain containers without the defaults lists, which Hydra removes when all files are merged."""
    if not isinstance(config, DictConfig):
        return OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config
    if config._is_none() or config._is_missing() or config._is_interpolation():
        return None
    own = config._get_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS")
    return {
        key: _convert_to_plain(value)
        for key, value in config.items_ex(resolve=False)
        if not (own and key == "defaults")
    }


def _drop_origins(labels: dict[str, str], path: str) -> None:
    for key in [key for key in labels if key == path or key.startswith(f"{path}.")]:
        del labels[key]


def _apply_override(labels: dict[str, str], override: Override) -> None:
    path, value = override.key_or_group, override.value()
    if override.is_delete():
        _drop_origins(labels, path)
        labels[path] = COMMAND_LINE + (override.input_line or path)
        return
    _record_origin(labels, value, path, COMMAND_LINE + (override.input_line or path).lstrip("+"))
