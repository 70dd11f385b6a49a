"""Prepare the job of a drill: the run that a config describes, with a recorder and without trackers that others see."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.config.checkpoint_address import keep_checkpoints_local
from mlscale.launch.start_notices import print_masked_lines
from mlscale.runs.folder import RunFolder
from mlscale.secrets.config_secrets import list_required_variables, protect_config
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OWN_KEYS = (
    "ref", "trust",
    "stop_step", "steps_after", "restart_devices", "grace_limit_s", "start_limit_s", "node_folders", "report", "keep",
)  # fmt: skip
_CSV_LOGGER = "mlscale.train.loggers.csv"
# The processes that the drill starts are the job itself, which must not be submitted again.
_LOCAL_LAUNCH = {"max_restarts": 0, "timeout_s": 600.0}


def create_job(cfg: DictConfig, folder: Path, init: Mapping[str, Any] | None, masker: Masker) -> RunFolder:
    """Create the run folder that each start of the job is like, in `folder`, with records in `<folder>/records`."""
    # Without uploads: these runs are no results.
    plain = keep_checkpoints_local(cfg.copy())
    for key in _OWN_KEYS:
        plain.pop(key)
    plain.derived = dict.fromkeys(plain.derived)
    # Derived again by each run, as a new start of the command does; all of them have the same code.
    plain.snapshot, plain.output = False, "table"
    plain.launch = _LOCAL_LAUNCH
    if "max_time" in plain.trainer:
        plain.trainer.max_time = None  # its end would be an ending of its own
    # A tracker would show runs that are no results.
    trackers = {name: node for name, node in (plain.get("logger") or {}).items() if node}
    away = [name for name, node in trackers.items() if node.get("_target_") != _CSV_LOGGER]
    if away:
        retained = {name: node for name, node in trackers.items() if name not in away}
        plain.logger = retained or {"csv": {"_target_": _CSV_LOGGER, "save_dir": "${derived.run_dir}/logs"}}
        print_masked_lines([f"trackers  {', '.join(away)} left out: these runs are not results"], masker)
    recorder = {"_target_": "mlscale.drill.step_recorder.StepRecorder", "folder": str(folder / "records")}
    plain.callbacks = {**(plain.get("callbacks") or {}), "recorder_of_drill": recorder}
    protected, environment = protect_config(plain)
    os.environ.update(environment)  # literal secrets: no file holds them, and the first start still sees them
    config_yaml = OmegaConf.to_yaml(OmegaConf.create(protected))
    return RunFolder.create(
        folder / "submitted", cfg.name, command="train", config_yaml=config_yaml, init=init, masker=masker
    )


def list_secret_variables(cfg: DictConfig) -> tuple[str, ...]:
    """Return the environment variables without which a run of this config fails, and that are set here."""
    return tuple(name for name in list_required_variables(protect_config(cfg)[0]) if name in os.environ)
