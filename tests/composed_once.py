"""Hydra merges the files that a command selects once per test process, and not once per test.

To read forty files, order them and merge them takes 0.15 s of the 0.17 s of a composition, and thousands of tests
change keys of the same few selections. What is kept is the result of that part, before the values of the command line
are set. A selection is known again by its options and by the content of the user's folders. A run's frozen config is
composed anew, and an error is never kept. `tests/contract/test_composed_once.py` compares both ways.
"""

from __future__ import annotations

import pickle
import stat
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.defaults_list import create_defaults_list as _create_list
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from mlscale.config.schema.roots import get_shipped_folder

_LARGEST = 1 << 16  # bytes of a file that is compared
_compose_files = ConfigLoaderImpl._compose_config_from_defaults_list
_lists: dict[Hashable, DefaultsList] = {}
_configs: dict[Hashable, bytes] = {}


def install() -> None:
    """Let every composition in this process look here first."""
    config_loader_impl.create_defaults_list = create_defaults_list  # type: ignore[attr-defined]  # it is imported there
    ConfigLoaderImpl._compose_config_from_defaults_list = compose_files  # type: ignore[assignment, method-assign]


def uninstall() -> None:
    """Let Hydra compose by itself again."""
    config_loader_impl.create_defaults_list = _create_list  # type: ignore[attr-defined]
    ConfigLoaderImpl._compose_config_from_defaults_list = _compose_files  # type: ignore[method-assign]


def create_defaults_list(
    repo: IConfigRepository,
    config_name: str | None,
    overrides_list: list[Override],
    prepend_hydra: bool,
    skip_missing: bool,
) -> DefaultsList:
    """Return the files to merge, in their order."""
    selecting = [override.input_line for override in overrides_list if repo.group_exists(override.key_or_group)]
    sources = _describe_sources(repo)
    if sources is None or "base=frozen" in selecting:
        return _create_list(repo, config_name, overrides_list, prepend_hydra, skip_missing)
    key = (sources, config_name, *selecting, prepend_hydra, skip_missing)
    if key not in _lists:
        _lists[key] = _create_list(repo, config_name, overrides_list, prepend_hydra, skip_missing)
    return replace(_lists[key], config_overrides=Overrides(repo, overrides_list).config_overrides)


def compose_files(loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
    """Return the merged files, a copy of its own for each composition."""
    merged = tuple((default.config_path, default.package, default.primary) for default in defaults)
    sources = _describe_sources(repo)
    if sources is None or any(path == "base/frozen" for path, *_ in merged):
        return _compose_files(loader, defaults, repo)
    key = (sources, merged)
    if key not in _configs:
        _configs[key] = pickle.dumps(_compose_files(loader, defaults, repo))
    config: DictConfig = pickle.loads(_configs[key])
    return config


def _describe_sources(repo: IConfigRepository) -> Hashable | None:
    """Return where files are searched, with the content of what is not shipped; None where that can't be compared."""
    shipped = {str(get_shipped_folder(name)) for name in ("conf", "recipes")}
    described: list[Hashable] = []
    for source in repo.get_sources():
        if source.scheme() in ("pkg", "structured") or source.path in shipped:
            described.append((source.scheme(), source.path))
            continue
        content = _read_folder(Path(source.path))  # wherever it is: each test copies it to a folder of its own
        if content is None:
            return None
        described.append((source.scheme(), content))
    return tuple(described)


def _read_folder(folder: Path) -> Hashable | None:
    files: list[tuple[str, bytes]] = []
    try:
        for path in folder.rglob("*"):
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode):
                files.append((str(path.relative_to(folder)), b""))
            elif stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST:
                files.append((str(path.relative_to(folder)), path.read_bytes()))
            else:  # a link, a pipe, a flood of text
                return None
    except OSError:
        return None
    return tuple(sorted(files))
