"""Compose the config of the runs of a verification: the user's, with a trace, and without what others see."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mlscale.commands.verify_resume.launchers import replace_launch
from mlscale.config.checkpoint_address import keep_checkpoints_local
from mlscale.launch.start_notices import print_masked_lines
from mlscale.secrets.config_secrets import protect_config
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OWN_KEYS = ("ref", "trust", "kills", "kill_seed", "determinism", "keep")
_CSV_LOGGER = "mlscale.train.loggers.csv"


def compose_traced_config(cfg: DictConfig, folder: Path, masker: Masker) -> str:
    """Return the config of a training run in `folder`, with a trace and without trackers that others see, as YAML.

    Raises:
        MLScaleError: what `launch` names can't start it.
    """
    # Without uploads: these runs are no results.
    plain = keep_checkpoints_local(cfg.copy())
    for key in _OWN_KEYS:
        plain.pop(key)
    replace_launch(plain)
    # Derived again by each run, as a new start of the command does.
    plain.derived = dict.fromkeys(plain.derived)
    # All these runs have the same code, so none needs a snapshot.
    plain.runs_dir, plain.snapshot, plain.output = str(folder), False, "table"
    if "max_time" in plain.trainer:
        plain.trainer.max_time = None  # its end would be an interruption of the reference
    trackers = {name: node for name, node in (plain.get("logger") or {}).items() if node}
    away = [name for name, node in trackers.items() if node.get("_target_") != _CSV_LOGGER]
    if away:
        retained = {name: node for name, node in trackers.items() if name not in away}
        plain.logger = retained or {"csv": {"_target_": _CSV_LOGGER, "save_dir": "${derived.run_dir}/logs"}}
        print_masked_lines([f"trackers  {', '.join(away)} left out: these runs are not results"], masker)
    trace = {"_target_": "mlscale.verify_resume.trace.Trace", "folder": "${derived.run_dir}/trace"}
    plain.callbacks = {**(plain.get("callbacks") or {}), "trace_of_verify_resume": trace}
    protected, environment = protect_config(plain)
    os.environ.update(environment)  # literal secrets: no file holds them, and the runs still see them
    return OmegaConf.to_yaml(OmegaConf.create(protected))
