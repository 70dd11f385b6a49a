"""Compose the config of the runs of a verification: the user's, with a trace, and without what others see."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mlscale.commands.rehearsal_config import compose_rehearsal_config
from mlscale.commands.verify_resume.launchers import replace_launch
from mlscale.secrets.config_secrets import protect_config
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OWN_KEYS = ("ref", "trust", "kills", "kill_seed", "determinism", "keep")


def compose_traced_config(cfg: DictConfig, folder: Path, masker: Masker) -> str:
    """Return the config of a training run in `folder`, with a trace and without trackers that others see, as YAML.

    Raises:
        MLScaleError: what `launch` names can't start it.
    """
    plain = compose_rehearsal_config(cfg, _OWN_KEYS, masker)
    replace_launch(plain)
    plain.runs_dir = str(folder)
    trace = {"_target_": "mlscale.verify_resume.trace.Trace", "folder": "${derived.run_dir}/trace"}
    plain.callbacks = {**(plain.get("callbacks") or {}), "trace_of_verify_resume": trace}
    protected, environment = protect_config(plain)
    os.environ.update(environment)  # literal secrets: no file holds them, and the runs still see them
    return OmegaConf.to_yaml(OmegaConf.create(protected))
