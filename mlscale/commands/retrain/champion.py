"""The champion that a challenger starts from: its run, its checkpoint, and its data.

The lineage of a challenger: the champion that it is to replace, and the tag of its run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.assembly.ready import compose_from_overrides
from mlscale.commands.retrain.cycle_settings import pass_on_trust
from mlscale.config.composition.frozen import add_derived
from mlscale.data.data_module import OrderedData
from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry, Version
from mlscale.versions.version_reference import CHAMPION

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import LightningDataModule

    from mlscale.export.servable import Servable
    from mlscale.runs.folder import RunFolder


@dataclass(frozen=True)
class Champion:
    """The champion that a challenger starts from.

    Attributes:
        version: the champion.
        servable: as it is served.
        config: of its run, checked.
        run: that made it.
        checkpoint: that it was made of.
        data: its data module, prepared; the windows of earlier cycles are a part of it.
        overrides: by which the config differs from that of the run.
    """

    version: Version
    servable: Servable
    config: DictConfig
    run: RunFolder
    checkpoint: Path
    data: OrderedData
    overrides: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """The precision of its weights, fp32 or int8."""
        return str(self.servable.document.get("precision", "fp32"))

    @classmethod
    def prepare_champion(cls, cfg: DictConfig, version: Version, servable: Servable) -> Champion:
        """Find the champion's run, and the data that it was trained on.

        Raises:
            MLScaleError: the run or the data are gone, or are not such as a challenger can be trained on.
        """
        from mlscale.versions.trained_model import find_origin

        run, checkpoint = find_origin(version, cfg.runs_dir)
        # Composed twice: only its own config records what an earlier cycle made of its data.
        former = list_former_splits(compose_run_config(run, cfg))
        config = compose_run_config(run, cfg, former)
        data = require_champion_data(build_prepared_data(config), servable, str(run.path))
        return cls(version, servable, config, run, checkpoint, data, tuple(former))


def compose_run_config(run: RunFolder, cfg: DictConfig, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the checked config of a run, with other overrides."""
    return compose_from_overrides("train", [f"like={run.path}", *pass_on_trust(cfg), *overrides])


def build_prepared_data(config: DictConfig) -> LightningDataModule | None:
    """Return the data module of a config, prepared; None where the task has loaders of its own."""
    from mlscale.assembly.run_parts import build_data

    # The size of a batch has no effect on what is read sample by sample.
    data = build_data(add_derived(config, {"per_device_batch": 1}))
    if data is not None:
        data.prepare_data()
    return data


def list_former_splits(config: DictConfig) -> list[str]:
    """Return the overrides that make validation data of all that must not be forgotten, for a run of an earlier
    version, whose validation data are the last window, and whose test data what was held out before that."""

    data = config.get("data") or {}
    # Runs with data.windows keep their splits apart by themselves.
    if RETRAINED not in (config.get("tags") or []) or data.get("windows") or not data.get("test"):
        return []
    # The oldest first, as a later list continues it.
    paths = [path for split in ("test", "val") for path in _list_paths(data[split])]
    return [f"data.val={format_path_list(paths)}", "data.test=null"]


def format_path_list(paths: Sequence[object]) -> str:
    """Return a list of paths, as Hydra's grammar reads it."""
    # Quoted: a path may have commas, brackets or blanks.
    quoted = (str(path).replace("'", "\\'") for path in paths)
    return "[" + ",".join(f"'{path}'" for path in quoted) + "]"


def _list_paths(given: object) -> list[str]:
    return [given] if isinstance(given, str) else list(map(str, given))  # type: ignore[call-overload]


_LISTED = 8


def require_champion_data(data: LightningDataModule | None, servable: Servable, run: str) -> OrderedData:
    """Return the data module of the champion, if windows can be mixed with it.

    Args:
        data: of the config of the champion's run, prepared.
        servable: the champion, as it is served.
        run: the folder of the run, for messages.

    Raises:
        MLScaleError: it can't be mixed, or has changed since the champion was trained on it.
    """
    if not isinstance(data, OrderedData) or not data.takes_windows:
        raise MLScaleError(
            f"the champion's data, {type(data).__name__ if data is not None else 'loaders of its task'}, can't be read "
            "back and mixed with a window",
            where=f"{run}: data",
            why="a challenger is trained on the window and, so that nothing is forgotten, on these, mixed by share",
            fix="data._target_=mlscale.data.DatasetData, which takes its Dataset, or the data as files: data=table, "
            "data=text_table, data=text_files, data=imagefolder or data=webdataset (docs/data.md); train a model on "
            "them, and promote it",
        )
    labels = tuple(map(str, data.facts().class_names or range(data.facts().num_classes or 0)))
    if labels != servable.labels:
        raise _build_changed_error(run, f"its classes are {_list_names(labels)}, and {_list_names(servable.labels)}")
    targets = tuple(target.name for target in data.describe_targets())
    known = tuple(target.name for target in servable.names.targets)
    if targets != known:
        raise _build_changed_error(run, f"its targets are {_list_names(targets)}, and {_list_names(known)}")
    # Format 1 has no encoder of its own in the document.
    if servable.format > 1 and data.encoder().digest != servable.encoder.digest:
        raise _build_changed_error(run, "its encoder, fitted again, differs from the one that is served")
    return data


def _build_changed_error(run: str, why: str) -> MLScaleError:
    return MLScaleError(
        "the champion's data are not what it was trained on",
        where=f"{run}: data",
        why=f"{why}: rows or columns were added, removed or changed since then",
        fix=f"mlscale like={run}, which trains a model on them, to export and promote; or restore the files, and put "
        "what is new into files of their own",
    )


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "") or "none"


RETRAINED = "retrain"
"""The tag of a run that a cycle has trained."""


def require_champion(registry: LocalRegistry, version: Version) -> Version:
    """Return `version` if it is its model's champion.

    Raises:
        MLScaleError: it is not the champion, or its model has none.
    """
    # The alias may have moved since the version was resolved: read it now.
    number = registry.get_aliases(version.name).of.get(CHAMPION)
    if number == version.number:
        return version
    raise MLScaleError(
        f"{version.ref} is not the champion of {version.name}",
        where=f"ref={version.ref}",
        why=f"that is {version.name}:v{number}" if number else "there is none yet",
        fix=f"mlscale retrain {version.name}@champion" if number else f"mlscale versions promote {version.ref}",
    )
