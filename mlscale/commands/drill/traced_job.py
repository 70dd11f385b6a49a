"""Prepare the job of a drill: the run that a config describes, with a recorder and without trackers that others see."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.commands.rehearsal_config import compose_rehearsal_config
from mlscale.runs.folder import RunFolder
from mlscale.secrets.config_secrets import list_required_variables, protect_config
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OWN_KEYS = (
    "ref", "trust",
    "stop_step", "steps_after", "restart_devices", "grace_limit_s", "start_limit_s", "node_folders", "report", "keep",
)  # fmt: skip
# The processes that the drill starts are the job itself, which must not be submitted again.
_LOCAL_LAUNCH = {"max_restarts": 0, "timeout_s": 600.0}


def create_job(cfg: DictConfig, folder: Path, init: Mapping[str, Any] | None, masker: Masker) -> RunFolder:
    """Create the run folder that each start of the job is like, in `folder`, with records in `<folder>/records`."""
    plain = compose_rehearsal_config(cfg, _OWN_KEYS, masker)
    plain.launch = _LOCAL_LAUNCH
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
