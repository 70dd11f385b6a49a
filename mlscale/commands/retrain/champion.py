"""The champion that a challenger starts from: its run, its checkpoint, and its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.assembly.ready import compose_from_overrides
from mlscale.commands.retrain.cycle_settings import pass_on_trust
from mlscale.config.composition.frozen import add_derived

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig
    from pytorch_lightning import LightningDataModule

    from mlscale.data.data_module import OrderedData
    from mlscale.export.servable import Servable
    from mlscale.runs.folder import RunFolder
    from mlscale.versions import Version


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
        from mlscale.retrain.champion_data import require_champion_data
        from mlscale.retrain.lineage import find_origin

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
    from mlscale.retrain.lineage import RETRAINED

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
