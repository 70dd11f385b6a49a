"""Open the data that a command line names: by a config, by a run, or by a path."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.commands.options import Options
from mlscale.config.names.suggest import find_nearest
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from mlscale.data.backend import Backend
    from mlscale.data.data_facts import DataFacts

_TABLES = (".csv", ".tsv", ".parquet", ".jsonl")
_DOCUMENT = "dataset.json"


@dataclass(frozen=True)
class OpenedData:
    """Data, prepared.

    Attributes:
        name: of its class, or the path or the run that it was named by.
        backend: its data module.
    """

    name: str
    backend: Backend

    @property
    def facts(self) -> DataFacts:
        """The facts of the data."""
        return self.backend.facts()


def open_data(options: Options, ref: str | None, words: Sequence[str] = (), *, as_stored: bool = False) -> OpenedData:
    """Return the data of a config: what is typed, on the config of a run if one is named.

    Args:
        options: with `overrides`, `config_dir` and `runs_dir`.
        ref: the run; None for what is typed alone.
        words: further settings, which what is typed overwrites.
        as_stored: without augmentation, with bad samples, and whatever sizes images have.

    Raises:
        MLScaleError: the config is wrong, or the data is missing or not what it should be.
    """
    from omegaconf import OmegaConf

    from mlscale.assembly.ready import compose_from_overrides
    from mlscale.assembly.run_data import RunData
    from mlscale.config.targets import has_argument
    from mlscale.data.backend import Backend
    from mlscale.data.images.labelled_images import adopt_common_size

    base = [f"like={ref}", f"runs_dir={options.runs_dir}"] if ref else []
    folders = [word for folder in options.config_dir for word in ("--config-dir", folder)]
    cfg = compose_from_overrides("train", [*base, *words, *options.overrides, *folders])
    # In the config and not as words: a word may not select what another one has selected.
    if as_stored:
        cfg.augment = None
        # By the class, since the file of a source of another package need not list the key.
        if cfg.data and has_argument(cfg.data, "on_bad_sample"):
            OmegaConf.update(cfg, "data.on_bad_sample", "skip", force_add=True)
    backend = RunData().prepare_module(cfg)
    if not isinstance(backend, Backend):
        raise MLScaleError(
            "this data reports nothing of itself",
            where="data",
            why="data of your own is looked at if it is a subclass of mlscale.data.Backend (docs/data.md)"
            if cfg.data
            else "none is named",
            fix="mlscale data ls, for what data= can read",
        )
    if as_stored:
        adopt_common_size(backend)
    return OpenedData(ref or type(backend).__name__, backend)


def open_side(name: str, options: Options) -> OpenedData:
    """Return one side of a comparison, as it is stored: a path, or else a run.

    Raises:
        MLScaleError: neither; or as of `open_data`.
    """
    path = Path(name).expanduser()
    # A run is a folder, too.
    if (path / "run.json").exists():
        return open_data(options, name, as_stored=True)
    if not path.exists():
        _check_run(name, options.runs_dir)
        return open_data(options, name, as_stored=True)
    opened = open_data(options, None, _describe_path(path, options.overrides), as_stored=True)
    return OpenedData(name, opened.backend)


def _check_run(name: str, runs_dir: str) -> None:
    from mlscale.runs.find import find_run

    try:
        find_run(name, runs_dir)
    except MLScaleError as error:
        raise MLScaleError(
            f"{name!r} is neither a file, a folder nor a run",
            where=f"command line: {name}",
            why=f"no such path exists here, and in {runs_dir}: {error.what}",
            fix=_find_near_side(name, error.fix),
        ) from error


def _find_near_side(name: str, near_run: str) -> str:
    """Return what was meant by a side of a comparison: the nearest file or folder next to it, or else run."""
    path = Path(name).expanduser()
    siblings = sorted(item.name for item in path.parent.iterdir()) if path.parent.is_dir() else []
    if near := find_nearest(path.name, siblings):
        return shlex.quote(str(path.with_name(near)))
    return "ls\nmlscale runs ls" if near_run.startswith("mlscale") else near_run


def _describe_path(path: Path, overrides: Sequence[str]) -> list[str]:
    """Return the settings that read a file or a folder, as far as they are not typed."""
    # In quotes: a path may hold characters that the grammar of overrides takes for its own.
    quoted = json.dumps(str(path))
    chosen = next((word.partition("=")[2] for word in overrides if word.startswith("data=")), None)
    if path.is_file():
        if path.suffix.lower() not in _TABLES and chosen is None:
            raise MLScaleError(
                f"the file {str(path)!r} is not a table",
                where=f"command line: {path}",
                why=f"tables end in {', '.join(_TABLES)}",
                fix="data=text_files, data=webdataset or data=tfrecord: type what the file is",
            )
        return [*([] if chosen else ["data=table"]), f"data.train={quoted}"]
    if (path / _DOCUMENT).is_file():
        return _describe_prepared(path)
    # A dataset of Hugging Face's, or its splits, which are folders, too.
    if chosen is None and any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return ["data=image_table", f"data.train={quoted}"]
    if chosen is None and not any(child.is_dir() for child in path.iterdir()):
        raise MLScaleError(
            f"the folder {str(path)!r} holds no folders of images",
            where=f"command line: {path}",
            why=f"it is none that mlscale prepare wrote ({_DOCUMENT}), and has no folder for each class",
            fix="data=text_files, if the folder holds texts\ndata=webdataset, if it holds shards",
        )
    return ["data=imagefolder", f"data.root={quoted}"] if chosen is None else [f"data.train={quoted}"]


def _describe_prepared(folder: Path) -> list[str]:
    from mlscale.atomic_files import read_json
    from mlscale.data.writing.sample_contents import FORMATS

    document = read_json(folder / _DOCUMENT)
    if document["container"] == "tokens":
        return ["data=tokens", f"data.root={json.dumps(str(folder))}"]
    # Parquet files were written by earlier versions.
    option = {**FORMATS, "parquet": "image_table"}[document["container"]]
    splits = [f"data.{split}={json.dumps(str(folder / split))}" for split in document["splits"]]
    return [f"data={option}", *splits, f"data.labels={document['labels']}"]
