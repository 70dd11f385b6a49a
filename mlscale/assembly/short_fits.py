"""Short fits in a temporary folder, from which `estimate` and `profile` learn the cost of a run's steps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from mlscale.assembly.launch import launch_training
from mlscale.config.checkpoint_address import keep_checkpoints_local
from mlscale.config.derive import derive_values
from mlscale.config.targets import import_target
from mlscale.errors import MLScaleError
from mlscale.file_locks import make_scratch_folder
from mlscale.launch.local_devices import detect_local_devices
from mlscale.runs.folder import RunFolder
from mlscale.secrets.config_secrets import protect_config

_RESUME = "mlscale runs resume"
_SKIPPED_LOGGERS = ("wandb", "tensorboard", "mlflow")


@contextmanager
def provide_scratch_folder(command: str) -> Iterator[Path]:
    """Provide a folder that is removed when the block ends."""
    # In the system's temporary folder: a measurement must not appear among the user's runs.
    with make_scratch_folder(command) as folder:
        yield folder


def shorten_config(
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
    short = keep_checkpoints_local(cfg.copy())
    with open_dict(short):
        short.trainer.limit_train_batches, short.trainer.limit_val_batches = batches
        # Each of these could end the fit before it has taken the wanted number of steps.
        short.trainer.update(max_epochs=epochs, max_steps=-1, max_time=None, overfit_batches=0)
        short.trainer.update(check_val_every_n_epoch=1, val_check_interval=None, enable_progress_bar=False)
        remaining = {
            name: node for name, node in (cfg.get("callbacks") or {}).items() if _should_stay(node, steps_alone, saves)
        }
        short.callbacks = {**remaining, **callbacks}
        short.compress = {}  # it comes after the fit
        short.logger = {
            name: node
            for name, node in (cfg.get("logger") or {}).items()
            if not any(word in str(node.get("_target_", "")).lower() for word in _SKIPPED_LOGGERS)
        }
    return short


def run_short_fit(
    short: DictConfig,
    facts: Mapping[str, Any] | None,
    folder: Path,
    threads: int | None = None,
    *,
    command: str,
) -> dict[str, Any]:
    """Train, launched as a run is; return the results of its first rank.

    Args:
        facts: of the data.
        folder: from `provide_scratch_folder`.
        threads: CPU threads of a process; None for what the run would have.
        command: that learns from it, for errors.

    Raises:
        MLScaleError: that of the training; one that can't be resumed, since its folder is removed, names the command.
    """
    derived = derive_values(short, facts, detect_local_devices())
    derived["threads"] = threads or derived["threads"]
    short.derived = dict.fromkeys(short.derived)
    # The run folder is read by other processes, but secrets are written to no file, not even a temporary one.
    protected, environment = protect_config(short)
    os.environ.update(environment)
    text = OmegaConf.to_yaml(OmegaConf.create(protected))
    run = RunFolder.create(folder, "short", command="train", config_yaml=text, derived=derived)
    with _explain_stop(folder, command):
        launch_training(run.path, derived["world_size"])
    outcome: dict[str, Any] = json.loads((run.path / "results/fit.json").read_text())
    return outcome


@contextmanager
def _explain_stop(folder: Path, command: str) -> Iterator[None]:
    """Let an error of a short fit name what can be typed: the command, and not a run in a folder that is removed."""
    try:
        yield
    except MLScaleError as error:
        what, _, _ = error.what.partition(f", saved to {folder}")
        # An error of the data or the model is that of the run itself.
        if not error.fix.startswith(_RESUME) and what == error.what and str(folder) not in error.where:
            raise
        raise MLScaleError(
            f"{what}, in a short fit that mlscale {command} measures",
            where="" if str(folder) in error.where else error.where,
            why=error.why,
            fix=f"mlscale {command} <the same words>" if error.fix.startswith(_RESUME) else error.fix,
            exit=error.exit,
        ) from error


def _should_stay(node: DictConfig | None, steps_alone: bool, saves: bool) -> bool:
    """Return whether a callback joins a short run: progress bars print, and early stopping ends it."""
    import pytorch_lightning as pl

    from mlscale.train.callbacks import NonFinite

    if not node:
        return False
    kind = import_target(node)
    excluded: tuple[type, ...] = (pl.callbacks.ProgressBar, pl.callbacks.EarlyStopping)
    excluded += (NonFinite,) if steps_alone else ()
    excluded += (pl.callbacks.ModelCheckpoint,) if steps_alone and not saves else ()
    return not (isinstance(kind, type) and issubclass(kind, excluded))
