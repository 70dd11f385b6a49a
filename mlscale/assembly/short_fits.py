"""Short fits in a temporary folder, from which `estimate` and `profile` learn the cost of a run's steps."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from mlscale.assembly.launch import launch
from mlscale.config.derive import derive
from mlscale.config.targets import target
from mlscale.launch.local_devices import this_machine
from mlscale.runs.folder import RunFolder
from mlscale.secrets.config_secrets import protect

_SILENT = ("wandb", "tensorboard", "mlflow")


@contextmanager
def scratch(verb: str) -> Iterator[Path]:
    """Provide a folder that is removed when the block ends."""
    # In the system's temporary folder: a measurement must not appear among the user's runs.
    with tempfile.TemporaryDirectory(prefix=f"mlscale-{verb}-") as folder:
        yield Path(folder)


def shortened(
    cfg: DictConfig,
    batches: tuple[int, int],
    epochs: int,
    callbacks: Mapping[str, Mapping[str, Any]],
    *,
    steps_alone: bool = False,
    saves: bool = False,
) -> DictConfig:
    """Return the config of a short run, without anything that shows or sends results, or might end it early.

    Args:
        batches: of training and of validation, each epoch.
        callbacks: that join it, by name.
        steps_alone: callbacks that save checkpoints, or end a run that diverges, stay out, too.
        saves: with `steps_alone`, whether those that save checkpoints stay nevertheless.
    """
    short = cfg.copy()
    with open_dict(short):
        short.trainer.limit_train_batches, short.trainer.limit_val_batches = batches
        # Each of these could end the fit before it has taken the wanted number of steps.
        short.trainer.update(max_epochs=epochs, max_steps=-1, max_time=None, overfit_batches=0)
        short.trainer.update(check_val_every_n_epoch=1, val_check_interval=None, enable_progress_bar=False)
        kept = {name: node for name, node in (cfg.get("callbacks") or {}).items() if _stays(node, steps_alone, saves)}
        short.callbacks = {**kept, **callbacks}
        short.compress = {}  # it comes after the fit
        short.logger = {
            name: node
            for name, node in (cfg.get("logger") or {}).items()
            if not any(word in str(node.get("_target_", "")).lower() for word in _SILENT)
        }
    return short


def fit(
    short: DictConfig,
    facts: Mapping[str, Any] | None,
    folder: Path,
    threads: int | None = None,
    *,
    announce_metric: bool = False,
) -> dict[str, Any]:
    """Train, launched as a run is; return the results of its first rank.

    Args:
        facts: of the data.
        threads: CPU threads of a process; None for what the run would have.
        announce_metric: whether a metric that is chosen for the run is printed: for one of several fits.
    """
    derived = derive(short, facts, this_machine())
    derived["threads"] = threads or derived["threads"]
    derived["announce_metric"] = announce_metric
    derived |= {name: short.derived.get(name) for name in ("precision", "memory_format")}  # found already, if asked for
    short.derived = dict.fromkeys(short.derived)
    # The run folder is read by other processes, but secrets are written to no file, not even a temporary one.
    protected, environment = protect(short)
    os.environ.update(environment)
    text = OmegaConf.to_yaml(OmegaConf.create(protected))
    run = RunFolder.create(folder, "short", verb="train", config_yaml=text, derived=derived)
    launch(run.path, derived["world_size"])
    outcome: dict[str, Any] = json.loads((run.path / "results/fit.json").read_text())
    return outcome


def _stays(node: Any, steps_alone: bool, saves: bool) -> bool:
    """Return whether a callback joins a short run: progress bars print, and early stopping ends it."""
    import pytorch_lightning as pl

    from mlscale.train.callbacks import NonFinite

    if not node:
        return False
    kind = target(node)
    away: tuple[type, ...] = (pl.callbacks.ProgressBar, pl.callbacks.EarlyStopping)
    away += (NonFinite,) if steps_alone else ()
    away += (pl.callbacks.ModelCheckpoint,) if steps_alone and not saves else ()
    return not (isinstance(kind, type) and issubclass(kind, away))
