"""The config of trainings that a command makes to watch them, which are no results: without what others would see."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mlscale.config.checkpoint_address import keep_checkpoints_local
from mlscale.errors import MLScaleError
from mlscale.launch.start_notices import print_masked_lines
from mlscale.secrets.config_secrets import protect_config
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

_CSV_LOGGER = "mlscale.train.loggers.csv"


def compose_rehearsal_config(cfg: DictConfig, own_keys: Sequence[str], masker: Masker) -> DictConfig:
    """Return a copy of a command's config for trainings of its own: without trackers, which a line reports, without
    uploads, and without a limit of time.

    Args:
        own_keys: settings of the command, which a training does not have.
    """
    plain = keep_checkpoints_local(cfg.copy())
    for key in own_keys:
        plain.pop(key)
    # Derived again by each run, as a new start of the command does.
    plain.derived = dict.fromkeys(plain.derived)
    # All these runs have the same code, so none needs a snapshot.
    plain.snapshot, plain.output = False, "table"
    if "max_time" in plain.trainer:
        plain.trainer.max_time = None  # its end would be an interruption that the command did not make
    trackers = {name: node for name, node in (plain.get("logger") or {}).items() if node}
    away = [name for name, node in trackers.items() if node.get("_target_") != _CSV_LOGGER]
    if away:
        retained = {name: node for name, node in trackers.items() if name not in away}
        plain.logger = retained or {"csv": {"_target_": _CSV_LOGGER, "save_dir": "${derived.run_dir}/logs"}}
        print_masked_lines([f"trackers  {', '.join(away)} left out: these runs are not results"], masker)
    return plain


def freeze_rehearsal_config(plain: DictConfig, watcher: str, folder: str | Path) -> str:
    """Return a config of `compose_rehearsal_config` as YAML, with one more callback.

    Args:
        watcher: the class of the callback, which observes the training.
        folder: the callback's only argument.
    """
    node = {"_target_": watcher, "folder": str(folder)}
    plain.callbacks = {**(plain.get("callbacks") or {}), "watcher_of_rehearsal": node}
    protected, environment = protect_config(plain)
    os.environ.update(environment)  # literal secrets: no file holds them, and the runs still see them
    return OmegaConf.to_yaml(OmegaConf.create(protected))


def read_process_count(cfg: DictConfig, user: str) -> int:
    """Return the number of processes of a node, which `user` starts by another launcher than mlscale's own.

    Raises:
        MLScaleError: it is not a number.
    """
    devices = cfg.trainer.get("devices", 1)
    # `auto` would count the devices of this machine, not those of the platform's.
    if not isinstance(devices, int) or devices < 1:
        raise MLScaleError(
            f"{user} needs a number of processes, not trainer.devices={devices}",
            where="trainer.devices",
            fix="trainer.devices=2",
        )
    return devices
