"""The steps of a training run: data, task, compression, callbacks, loggers, trainer; then fit."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from mlscale.assembly.build import build, build_each
from mlscale.assembly.fit_outcome import FitOutcome, build_fit_outcome, find_callback, find_lost_state
from mlscale.assembly.hook_layers import configure_own_model
from mlscale.assembly.remote_checkpoints import attach_uploader
from mlscale.assembly.run_data import RunData
from mlscale.assembly.run_parts import set_up_task
from mlscale.atomic_files import read_json
from mlscale.config.checkpoint_address import keep_checkpoints_local
from mlscale.config.derive import count_epoch_steps
from mlscale.config.metric_choice import follow_own_metrics
from mlscale.config.targets import has_argument, has_precision_plugin
from mlscale.data.backend import Backend
from mlscale.data.order.bad_samples import BAD_LIST, write_bad_list
from mlscale.runs.initial_source import InitialWeights
from mlscale.runs.run_reader import RUN
from mlscale.secrets.mask import Masker
from mlscale.train.after_fit import run_after_fit_hooks
from mlscale.train.callbacks import StepSeed
from mlscale.train.callbacks.run_metric import RunMetric
from mlscale.train.callbacks.stopwatch import Stopwatch
from mlscale.train.checkpoint.exact_resume import ExactResume
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.graceful_stop import StopOnSignal, parse_max_time
from mlscale.train.initial_weights import pretrained
from mlscale.train.initial_weights.start import load_initial_weights, write_match_report
from mlscale.train.initial_weights.weight_files import read_weight_file
from mlscale.train.input_size import explain_unsuited_input
from mlscale.train.lightning.missing_metric import explain_unlogged_metric
from mlscale.train.lightning.quiet import suppress_library_messages
from mlscale.train.loggers import finish_loggers
from mlscale.train.precision import LossScale, Mixed, create_precision_plugin
from mlscale.train.process_memory import reset_peak_memory
from mlscale.train.torch_compile import Compile, set_tf32
from mlscale.train.trainer_patches import apply_trainer_patches


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, built and joined."""

    trainer: pl.Trainer
    task: pl.LightningModule
    data: pl.LightningDataModule | None


def assemble_parts(cfg: DictConfig, run_data: RunData | None = None) -> Assembly:
    """Build everything that the config names, in the order in which one part needs another.

    Args:
        run_data: has the data module, if this process has built it before.
    """
    suppress_library_messages()
    torch.set_num_threads(cfg.derived.threads)
    if cfg.derived.accelerator == "cuda":
        set_tf32(cfg.get("tf32"))
    # Seeds, before anything random: the weights of the task are drawn in `set_up_task`.
    data = (run_data or RunData()).build_for_fit(cfg)
    task, line = set_up_task(cfg, data)
    if line and _is_first_rank():
        print(line, file=sys.stderr, flush=True)
    # Compression joins the run as callbacks: this module does not import it.
    follow_own_metrics(cfg)
    callbacks = [ExactResume(cfg.seed), StepSeed(cfg.seed), RunMetric(cfg.metric)]
    callbacks += build_each(keep_checkpoints_local(cfg).get("callbacks"), "callbacks").values()
    callbacks += build_each(cfg.get("compress"), "compress").values()
    # After the callbacks of all groups are built: any of them may save checkpoints.
    stop_checkpoint = set_checkpoint_folder(callbacks, f"{cfg.derived.run_dir}/checkpoints")
    if (mode := cfg.get("compile")) and has_argument(cfg.task, "model"):
        callbacks.append(Compile(mode if isinstance(mode, str) else None))
    callbacks += [Stopwatch(), StopOnSignal(stop_checkpoint, parse_max_time(cfg.trainer.get("max_time")))]
    loggers = build_loggers(cfg)
    trainer = build_trainer(cfg, callbacks, loggers)
    apply_trainer_patches(trainer)
    return Assembly(trainer, task, data)


def assemble_and_fit(
    cfg: DictConfig,
    resume: str | None = None,
    initial: InitialWeights | None = None,
    run_data: RunData | None = None,
) -> FitOutcome:
    """Assemble and train: from the start, with the weights `initial` if given, or from the checkpoint `resume`."""
    parts = assemble_parts(cfg, run_data)
    if initial is not None:
        _load_first_weights(parts.task, initial, cfg)
    _start_loggers(parts.trainer.loggers, cfg, resume)
    # The peak memory is that of this fit, without what building the parts took.
    reset_peak_memory(parts.trainer.strategy.root_device)
    if _is_first_rank():
        attach_uploader(parts.trainer, cfg)
    start = time.perf_counter()
    _fit(parts, cfg, resume)
    if lost := find_lost_state(parts.trainer):
        raise lost
    _write_left_out(parts.trainer, Path(cfg.derived.run_dir))
    outcome = build_fit_outcome(cfg, parts.trainer, time.perf_counter() - start)
    # After the outcome is taken: compression and the like have metrics of their own, which are kept in `joined`.
    return outcome.add_reports(run_after_fit_hooks(parts.trainer, parts.task))


def _write_left_out(trainer: pl.Trainer, folder: Path) -> None:
    """Write the list of bad samples into the run's folder: `mlscale prepare leave_out=` takes it."""
    data = getattr(trainer, "datamodule", None)
    # A probe has no folder.
    if trainer.is_global_zero and isinstance(data, Backend) and data.left_out and folder.is_dir():
        write_bad_list(folder / BAD_LIST, data.left_out)


def _start_loggers(loggers: list[Any], cfg: DictConfig, resume: str | None) -> None:
    """Send the composed config to the trackers; a new fit first discards what they hold of an earlier attempt."""
    for logger in loggers:
        if resume is None and hasattr(logger, "start_over"):
            logger.start_over()  # an attempt before this one may have been killed before it saved anything
        logger.log_hyperparams(_collect_hyperparameters(cfg))


def _fit(parts: Assembly, cfg: DictConfig, resume: str | None) -> None:
    """Run Lightning's fit, close the trackers, and explain the errors whose cause is in the config or the data."""
    trainer = parts.trainer
    failed = True
    try:
        # weights_only: torch unpickles tensors and plain values alone, so a checkpoint can't run code.
        trainer.fit(parts.task, datamodule=parts.data, ckpt_path=resume, weights_only=True)
        failed = False
    except Exception as error:
        problem = explain_unlogged_metric(
            error, find_callback(trainer, RunMetric).metric, trainer.callback_metrics
        ) or explain_unsuited_input(error, parts.task, parts.data)
        if problem:
            raise problem from error
        raise
    finally:
        # In any case: Lightning leaves closing to the interpreter's exit, which worker processes do not reach.
        finish_loggers(trainer.loggers, failed=failed)


def _load_first_weights(task: pl.LightningModule, initial: InitialWeights, cfg: DictConfig) -> None:
    """Give the task the weights that the run starts from, and print which of them fitted."""
    outputs = cfg.derived.get("num_classes") or cfg.derived.get("targets")

    def read_initial_weights(path: Path) -> Mapping[str, Tensor]:
        # timm adapts its weights to the model's channels and classes, so it must build the model to read them.
        if initial.source == pretrained.TIMM:
            return pretrained.load_timm_weights(initial, partial(build, cfg.model, "model"), outputs)
        return read_weight_file(path)

    strict = cfg.get("init_strict", True)
    configure_own_model(task)
    matched, lines = load_initial_weights(
        task, initial, classes=outputs, strict=strict, read_weights=read_initial_weights
    )
    if _is_first_rank():
        write_match_report(matched, Path(cfg.derived.run_dir))
        print(*lines, sep="\n", file=sys.stderr, flush=True)


def _is_first_rank() -> bool:
    # RANK is not set with one device, which trains in the launching process.
    return int(os.environ.get("RANK", "0")) == 0


def _collect_hyperparameters(cfg: DictConfig) -> dict[str, Any]:
    """Return what trackers show: the composed config, masked, interpolations of the environment unresolved."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    masked: dict[str, Any] = Masker.create_for_run(cfg).mask_tree(
        {str(key): value for key, value in plain.items() if key != "logger"}
    )
    return masked


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
