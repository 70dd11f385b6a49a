"""Build Lightning's Trainer and the trackers of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mlscale.assembly.build import build
from mlscale.atomic_files import read_json
from mlscale.config.derive import count_epoch_steps
from mlscale.config.targets import has_argument, has_precision_plugin
from mlscale.runs.run_reader import RUN
from mlscale.secrets.mask import Masker
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.loss_scaling import LossScale, Mixed
from mlscale.train.precision import create_precision_plugin

LOGGER_TEXTS = ("name", "group", "tags", "notes")  # free texts of a tracker


def build_loggers(cfg: DictConfig) -> list[Any]:
    """Return the trackers. What they show to others is masked; their own keys and addresses are not."""
    masker = Masker.create_for_run(cfg)
    loggers = []
    for name, node in (cfg.get("logger") or {}).items():
        # Only the texts that a tracker shows are masked: its key and address must arrive as they are.
        texts = {key: node[key] for key in LOGGER_TEXTS if key in node}
        texts = {k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for k, v in texts.items()}
        loggers.append(build(node, f"logger.{name}", **masker.mask_tree(texts)))
    return loggers


def build_trainer(cfg: DictConfig, callbacks: list[Any], loggers: list[Any]) -> pl.Trainer:
    """Return Lightning's Trainer, with the parts that other groups own."""
    own = has_precision_plugin(cfg)
    plugin = None if own else create_precision_plugin(cfg.precision, cfg.derived.accelerator)
    callbacks = [*callbacks, *([LossScale(plugin)] if isinstance(plugin, Mixed) else [])]
    supplied: dict[str, Any] = {
        "accelerator": cfg.derived.accelerator,
        # Per machine, as Lightning counts; runs of earlier versions have one machine.
        "devices": cfg.derived.world_size // (cfg.derived.get("nodes") or 1),
        "num_nodes": cfg.derived.get("nodes") or 1,
        "precision": None if own or plugin is not None else cfg.precision.value,
        "strategy": build(
            cfg.strategy, "strategy", **_supply_world_size(cfg), **_allow_unused_parameters(cfg, callbacks)
        ),
        "callbacks": callbacks,
        "logger": loggers or False,
        "default_root_dir": cfg.derived.run_dir,
        "enable_checkpointing": True,
        "max_time": None,  # its end would be that of the run; ours is that of an attempt
    }
    supplied |= _resolve_batch_limits(cfg)
    # Lightning refuses a progress bar callback next to enable_progress_bar=False, and adds one of its own to True.
    bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks)
    supplied["enable_progress_bar"] = cfg.trainer.get("enable_progress_bar", bar)
    supplied["enable_model_summary"] = cfg.trainer.get("enable_model_summary", False)
    trainer = build(cfg.trainer, "trainer", **supplied)
    assert isinstance(trainer, pl.Trainer)
    if plugin is not None:
        trainer.strategy.precision_plugin = plugin  # by its name Lightning would make one of its own
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # a plugin of the user's, in trainer.plugins, stays
        trainer.strategy.checkpoint_io = VerifiedCheckpointIO(*_read_run_identity(cfg.derived.get("run_dir")))
    return trainer


def _supply_world_size(cfg: DictConfig) -> dict[str, int]:
    """Return the number of processes for strategies that take it; Lightning's own get it from the Trainer."""
    return {"world_size": cfg.derived.world_size} if has_argument(cfg.strategy, "world_size") else {}


def _read_run_identity(folder: str | None) -> tuple[str | None, str | None]:
    """Return id and config hash of the run in a folder, for its checkpoints; None for both if it is not a run's."""
    if not folder or not (Path(folder) / RUN).is_file():
        return None, None
    document = read_json(Path(folder) / RUN)
    return document.get("id"), document.get("config_hash")


def _allow_unused_parameters(cfg: DictConfig, callbacks: list[Any]) -> dict[str, bool]:
    """Return the setting by which a strategy searches for unused parameters, if a callback freezes some."""
    key = "find_unused_parameters"
    wanted = any(getattr(callback, "leaves_unused", False) for callback in callbacks)
    return {key: True} if wanted and has_argument(cfg.strategy, key) else {}


def _resolve_batch_limits(cfg: DictConfig) -> dict[str, int]:
    """Return fractions of the data as numbers of batches, at least one: Lightning refuses a tenth of six batches."""
    derived, accumulate = cfg.derived, cfg.trainer.get("accumulate_grad_batches", 1)
    if not derived.per_device_batch or derived.train_samples is None:
        return {}
    training = count_epoch_steps(cfg.data, derived.train_samples)[0] * accumulate
    batches = {
        "limit_train_batches": training,
        "overfit_batches": training,
        # Rounded up: a validation takes its last, incomplete batch, too.
        "limit_val_batches": -(-derived.val_samples // (derived.per_device_batch * derived.world_size)),
    }
    given = {key: cfg.trainer.get(key) for key in batches}
    return {
        key: max(1, int(batches[key] * limit))
        for key, limit in given.items()
        if isinstance(limit, float) and 0 < limit < 1
    }


def set_checkpoint_folder(callbacks: list[Any], folder: str) -> str | None:
    """Let checkpoint callbacks that name no folder save to `folder`. Returns where a stopped run saves: None if it
    keeps no checkpoints at all.
    """
    saving = [callback for callback in callbacks if isinstance(callback, pl.callbacks.ModelCheckpoint)]
    for callback in saving:
        callback.dirpath = callback.dirpath or folder
    return f"{folder}/last.ckpt" if saving else None
