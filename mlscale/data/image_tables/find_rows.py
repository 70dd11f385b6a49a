"""Find the files of rows that a path, a glob or a folder names, by split."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlscale.atomic_files import read_json
from mlscale.data.image_tables.stored_features import (
    StoredFeatures,
    parse_card_features,
    parse_features,
    read_card,
)
from mlscale.data.shards.system_files import is_system_file, report_once
from mlscale.data.table_parsing.table_files import find_table_files
from mlscale.errors import MLScaleError

ARROW = ".arrow"
_STATE, _INFO, _DICT, _CARD = "state.json", "dataset_info.json", "dataset_dict.json", "README.md"
_BY_CHOICE = ((".parquet",), (ARROW,), (".csv", ".tsv", ".jsonl", ".ndjson"))
"""Endings of files in a folder: those of the first kind that is there are read."""
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The names of splits here, by those in names of files and in columns."""


@dataclass(frozen=True)
class FoundRows:
    """The files of a split.

    Attributes:
        files: at least one.
        features: what is recorded of their columns outside of them.
    """

    files: tuple[Path, ...]
    features: StoredFeatures = field(default_factory=StoredFeatures)


def find_rows(spec: str | Sequence[str], where: str) -> dict[str, FoundRows]:
    """Return the files that `data.train` or another key names, by split; 'train' where they have no splits.

    Args:
        spec: paths or globs of files; or a folder: one that `save_to_disk` wrote, or of files whose names have splits.
        where: the key path, for errors.

    Raises:
        MLScaleError: nothing is there, or the folder is not what it should be.
    """
    patterns = [spec] if isinstance(spec, str) else list(map(str, spec))
    # Several paths are files: folders have splits, which would have to be joined.
    folder = Path(patterns[0]).expanduser()
    if len(patterns) != 1 or not folder.is_dir():
        return {"train": FoundRows(tuple(find_table_files(patterns, where, (ARROW,), takes_folders=True)))}
    if (folder / _DICT).is_file():
        return _find_saved_splits(folder, where)
    if (folder / _STATE).is_file():
        return {"train": _find_saved(folder, where)}
    return _find_in_folder(folder, where)


def get_single_split(listed: Mapping[str, FoundRows], where: str) -> FoundRows:
    """Return the files of a folder that holds one split.

    Raises:
        MLScaleError: it holds several.
    """
    if len(listed) > 1:
        folder = next(iter(listed.values())).files[0].parent
        raise MLScaleError(
            f"this folder holds several splits: {', '.join(listed)}",
            where=where,
            why="data.train takes them all; another key names one",
            fix=f"{where}=null, to take the splits of data.train; or {where}={folder}/<its files>",
        )
    return next(iter(listed.values()))


def _find_saved_splits(folder: Path, where: str) -> dict[str, FoundRows]:
    """Return the splits of a `DatasetDict`."""
    names = _check_names(read_json(folder / _DICT).get("splits"), folder / _DICT, where)
    return _rename_splits({name: _find_saved(folder / name, where) for name in names}, folder, where)


def _find_saved(folder: Path, where: str) -> FoundRows:
    """Return the files of a `Dataset` that `save_to_disk` wrote, with the types of its columns."""
    state = read_json(folder / _STATE)
    files = state.get("_data_files")
    given = [file.get("filename") for file in files if isinstance(file, dict)] if isinstance(files, list) else None
    names = _check_names(given, folder / _STATE, where)
    # Rows in another order or number than the files have: versions before 2 wrote them so.
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise MLScaleError(
            f"the dataset {str(folder)!r} holds a selection of the rows of its files",
            where=where,
            why="it was saved by datasets 1.x without its rows being written",
            fix="`dataset.flatten_indices().save_to_disk('saved')`, in Python with datasets",
        )
    paths = tuple(folder / name for name in names)
    # The table would be shorter, and nothing else would show it.
    if absent := [path for path in paths if not path.is_file()]:
        raise MLScaleError(
            f"the dataset {str(folder)!r} lacks {len(absent)} of its {len(paths)} files",
            where=where,
            why=f"{_STATE} names {absent[0].name}",
            fix=f"cp <a copy of {absent[0].name}> {folder}, or save the dataset again",
        )
    info = read_json(folder / _INFO) if (folder / _INFO).is_file() else {}
    return FoundRows(paths, parse_features(info.get("features")))


def _check_names(names: object, path: Path, where: str) -> list[str]:
    """Return the names of files or folders that a file lists."""
    # By anyone who wrote the folder: a name with '../' would lead out of it.
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and _is_plain(n) for n in names):
        raise MLScaleError(
            f"{path.name} names no files of {str(path.parent)!r}",
            where=where,
            why="it is not as save_to_disk of Hugging Face's datasets writes it",
            fix="data.train='data/*.arrow', its files; or save the dataset again",
        )
    return names


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _find_in_folder(folder: Path, where: str) -> dict[str, FoundRows]:
    """Return the splits of a folder of files, by its README.md or by the files' names."""
    card_path = folder / _CARD
    card = read_card(card_path.read_text("utf-8-sig", errors="replace")) if card_path.is_file() else {}
    config, patterns = _read_card_files(card)
    # Sorted: the order of rows is that of their files on every machine.
    inside = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    chosen = next(
        (files for endings in _BY_CHOICE if (files := [p for p in inside if p.suffix.lower() in endings])), []
    )
    if not chosen:
        raise MLScaleError(
            f"the folder {str(folder)!r} holds no table",
            where=where,
            why=f"tables end in {', '.join(ending for endings in _BY_CHOICE for ending in endings)}",
            fix=f"{where}=photos.csv; or data=imagefolder data.root={folder}, for images in a folder for each class",
        )
    splits: dict[str, list[Path]] = {}
    for path in chosen:
        # The repository's own patterns win over a guess by names; what they leave out is not read.
        if (name := _match_card(path, folder, patterns)) is not None:
            splits.setdefault(name, []).append(path)
    if absent := patterns.keys() - splits.keys():
        named = "; ".join(f"{split}: {', '.join(patterns[split])}" for split in patterns if split in absent)
        guess = "" if splits else "; splits are those that names of files have"
        report_once(f"data      {card_path} names files that are not there ({named}){guess}")
    for path in () if splits else chosen:
        splits.setdefault(_find_split_name(path.relative_to(folder)), []).append(path)
    features = parse_card_features(card, config)
    listed = {name: FoundRows(tuple(files), features) for name, files in splits.items()}
    return _rename_splits(listed, folder, where)


def _is_hidden(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder)
    return is_system_file(inside.as_posix()) or any(part.startswith(".") for part in inside.parts)


def _read_card_files(card: Mapping[str, Any]) -> tuple[str, dict[str, list[str]]]:
    """Return the name of the default configuration of a README.md, and its patterns of files by split."""
    listed = card.get("configs")
    configs = [config for config in listed if isinstance(config, dict)] if isinstance(listed, list) else []
    chosen = next((c for c in configs if c.get("default") or c.get("config_name") == "default"), None)
    chosen = chosen or (configs[0] if configs else {})
    files = chosen.get("data_files")
    patterns: dict[str, list[str]] = {}
    for entry in files if isinstance(files, list) else ():
        if isinstance(entry, dict) and "split" in entry and "path" in entry:
            paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            patterns[str(entry["split"])] = [str(path) for path in paths]
    return str(chosen.get("config_name", "default")), patterns


def _match_card(path: Path, folder: Path, patterns: Mapping[str, Sequence[str]]) -> str | None:
    name = path.relative_to(folder).as_posix()
    return next((split for split, globs in patterns.items() if any(fnmatch.fnmatch(name, g) for g in globs)), None)


def _find_split_name(path: Path) -> str:
    """Return the split that a file's name or a folder of it has as a word; 'train' where none has."""
    # The file's own name first: of `train/val.csv` it is the more exact one.
    for part in reversed(path.parts):
        # As a word: 'constrain.csv' is not a training split.
        words = re.split(r"[^a-z]+", part.lower())
        if name := next((word for word in words if word in SPLIT_NAMES), None):
            return name
    return "train"


def _rename_splits(listed: Mapping[str, FoundRows], folder: Path, where: str) -> dict[str, FoundRows]:
    """Return splits by their names here: train, val and test; a single one of another name is the training split."""
    named = {SPLIT_NAMES.get(name.lower(), name): rows for name, rows in listed.items()}
    # The caller asked for one split, whatever it is called.
    if len(named) == 1:
        return named
    if "train" not in named or set(named) - {"train", "val", "test"}:
        raise MLScaleError(
            f"the splits of {str(folder)!r} are called {', '.join(listed) or 'nothing'}",
            where=where,
            why="of several one is called train, the others validation (val, dev) or test",
            fix=f"{where}={folder}/<the files of one split>, and data.val=… for another",
        )
    # In this order everywhere: it is part of the data's version.
    return {name: named[name] for name in ("train", "val", "test") if name in named}
