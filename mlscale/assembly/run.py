"""The steps of a training run: data, task, compression, callbacks, loggers, trainer; then fit."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from mlscale.assembly.build import build, build_each
from mlscale.assembly.run_data import RunData
from mlscale.atomic_files import read_json
from mlscale.config.derive import count_epoch_steps
from mlscale.config.metric_choice import follow_own_metrics, is_set
from mlscale.config.targets import has_argument, has_precision_plugin, import_target
from mlscale.errors import MLScaleError
from mlscale.runs.folder import RUN, RunFolder
from mlscale.runs.initial_source import InitialWeights
from mlscale.secrets.mask import Masker
from mlscale.tasks.base import Task
from mlscale.tasks.models import lazy
from mlscale.train.after_fit import run_after_fit_hooks
from mlscale.train.callbacks import StepSeed
from mlscale.train.callbacks.checkpoints import Checkpoints
from mlscale.train.callbacks.loss_end import LossEnd, compute_constant_loss
from mlscale.train.callbacks.run_metric import UNCHOSEN, RunMetric
from mlscale.train.callbacks.stopwatch import Stopwatch
from mlscale.train.checkpoint.exact_resume import ExactResume
from mlscale.train.checkpoint.io import VerifiedCheckpointIO
from mlscale.train.compiled_names import use_uncompiled_names
from mlscale.train.graceful_stop import StopOnSignal, parse_max_time
from mlscale.train.initial_weights import pretrained
from mlscale.train.initial_weights.start import load_initial_weights, write_match_report
from mlscale.train.initial_weights.weight_files import read_weight_file
from mlscale.train.input_size import explain_unsuited_input
from mlscale.train.lightning import patches as lightning_patches
from mlscale.train.lightning.missing_metric import explain_unlogged_metric
from mlscale.train.lightning.quiet import suppress_library_messages
from mlscale.train.loggers import finish_loggers
from mlscale.train.loss_scaling import LossScale, Mixed
from mlscale.train.precision import create_precision_plugin, set_memory_layout
from mlscale.train.process_memory import reset_peak_memory
from mlscale.train.strategies import has_stable_sum_order
from mlscale.train.torch_compile import Compile, set_tf32

T = TypeVar("T")
LOGGER_TEXTS = ("name", "group", "tags", "notes")  # free texts of a tracker


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, built and joined."""

    trainer: pl.Trainer
    task: pl.LightningModule
    data: pl.LightningDataModule | None


@dataclass(frozen=True)
class FitOutcome:
    """The results of a fit.

    Attributes:
        metrics: the last value of every logged metric, by name.
        seconds: wall time of the fit.
        train_seconds: of these, in training: without set-up and validation.
        steps: optimizer steps of the run.
        samples: training samples of this fit over all ranks; None if the data does not report its batch size.
        peak_memory_bytes: the most that a process of the run has used, of all ranks.
        best: path of the best checkpoint, and the value of the run's metric there.
        failed_saves: checkpoints that could not be saved because the disk was full.
        resumed_step: the optimizer step that it resumed from; None for a new fit.
        inexact: why a resumed fit may not be bitwise identical to one without the interruption, a phrase each; empty
            where it is, as far as is known: on as many ranks as before, with the same threads, libraries and CPU, from
            a checkpoint that holds all of their state, on a CPU or with deterministic algorithms.
        replayed: batches that were loaded again, because their loader has no state of its own.
        joined: metrics of what joined the run from outside and came after the fit.
        remarks: the same in words.
        met: whether all requirements on these are met.
    """

    metrics: dict[str, float]
    seconds: float
    train_seconds: float
    steps: int
    samples: int | None
    peak_memory_bytes: int
    best: tuple[str, float] | None
    failed_saves: int = 0
    resumed_step: int | None = None
    inexact: tuple[str, ...] = ()
    replayed: int = 0
    joined: dict[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    met: bool = True


def assemble_parts(cfg: DictConfig, run_data: RunData | None = None) -> Assembly:
    """Build everything that the config names, in the order in which one part needs another.

    Args:
        run_data: has the data module, if this process has built it before.
    """
    suppress_library_messages()
    torch.set_num_threads(cfg.derived.threads)
    if cfg.derived.accelerator == "cuda":
        set_tf32(cfg.get("tf32"))
    # Seeds, before anything random: the weights of the task are drawn in `build_task`.
    data = (run_data or RunData()).build_for_fit(cfg)
    task = build_task(cfg)
    if isinstance(task, Task) and hasattr(data, "facts"):
        # Not in `setup`: DDP has seeded again by then, and weights to start from have been compared with shapes.
        lazy.materialize_layers(task.model, data)
    set_memory_layout(task, cfg.precision.get("memory_format"))
    # Compression and monitoring join the run as callbacks: this module imports neither.
    callbacks = [ExactResume(cfg.seed), StepSeed(cfg.seed), build_run_metric(cfg), build_loss_end(cfg, task)]
    callbacks += build_each(cfg.get("callbacks"), "callbacks").values()
    callbacks += build_each(cfg.get("compress"), "compress").values()
    callbacks += build_each(cfg.get("monitor"), "monitor").values()
    # After the callbacks of all groups are built: any of them may save checkpoints.
    stop_checkpoint = set_checkpoint_folder(callbacks, f"{cfg.derived.run_dir}/checkpoints")
    if (mode := cfg.get("compile")) and has_argument(cfg.task, "model"):
        callbacks.append(Compile(mode if isinstance(mode, str) else None))
    callbacks += [Stopwatch(), StopOnSignal(stop_checkpoint, parse_max_time(cfg.trainer.get("max_time")))]
    loggers = build_loggers(cfg)
    trainer = build_trainer(cfg, callbacks, loggers)
    lightning_patches.apply_trainer_patches(trainer)
    return Assembly(trainer, task, data)


def build_run_metric(cfg: DictConfig) -> RunMetric:
    """Return the callback that knows the run's metric, or chooses it. Callbacks that follow an open metric wait under
    its placeholder.
    """
    follow_own_metrics(cfg)
    run_metric = RunMetric(
        cfg.metric,
        cfg.mode,
        given=is_set(cfg, "metric"),
        given_mode=is_set(cfg, "mode"),
        record=lambda metric, mode: RunFolder.open(cfg.derived.run_dir).set_key_metric(metric, mode),
        announce=cfg.derived.get("announce_metric", True),
    )
    if cfg.metric is None:
        # A placeholder: callbacks that monitor `${metric}` are built before one is known. `RunMetric` replaces it.
        cfg.derived.metric = UNCHOSEN
    if cfg.mode is None:
        # Lightning's callbacks refuse a mode that is neither min nor max; `RunMetric` sets the right one with the
        # metric.
        cfg.derived.mode = "min"
    return run_metric


def build_loss_end(cfg: DictConfig, task: pl.LightningModule) -> LossEnd:
    """Return the callback that reports a loss which ends far above its start."""
    facts = cfg.derived
    plain = getattr(task, "kind", None) == "classification"  # whose loss is the cross-entropy
    return LossEnd(compute_constant_loss(facts.get("class_counts"), facts.get("num_classes")) if plain else None)


def assemble_and_fit(
    cfg: DictConfig,
    resume: str | None = None,
    initial: InitialWeights | None = None,
    run_data: RunData | None = None,
) -> FitOutcome:
    """Assemble and train: from the start, with the weights `initial` if given, or from the checkpoint `resume`."""
    parts = assemble_parts(cfg, run_data)
    trainer = parts.trainer
    if initial is not None:
        _load_first_weights(parts.task, initial, cfg)
        _find_callback(trainer, LossEnd).pretrained = True
    for logger in trainer.loggers:
        if resume is None and hasattr(logger, "start_over"):
            logger.start_over()  # an attempt before this one may have been killed before it saved anything
        logger.log_hyperparams(_collect_hyperparameters(cfg))
    # The peak memory is that of this fit, without what building the parts took.
    reset_peak_memory(trainer.strategy.root_device)
    failed = True
    start = time.perf_counter()
    try:
        # weights_only: torch unpickles tensors and plain values alone, so a checkpoint can't run code.
        trainer.fit(parts.task, datamodule=parts.data, ckpt_path=resume, weights_only=True)
        failed = False
    except Exception as error:
        problem = explain_unlogged_metric(
            error, _find_callback(trainer, RunMetric).metric, trainer.callback_metrics
        ) or explain_unsuited_input(
            error,
            parts.task,
            parts.data,
            per_device_batch=cfg.derived.per_device_batch,
            ranks=cfg.derived.world_size * cfg.trainer.get("accumulate_grad_batches", 1),
        )
        if problem:
            raise problem from error
        raise
    finally:
        # In any case: Lightning leaves closing to the interpreter's exit, which worker processes do not reach.
        finish_loggers(trainer.loggers, failed=failed)
    if lost := _find_lost_state(trainer):
        raise lost
    outcome = _build_fit_outcome(cfg, trainer, time.perf_counter() - start)
    # After the outcome is taken: compression and the like have metrics of their own, which are kept in `joined`.
    reports = run_after_fit_hooks(trainer, parts.task)
    return replace(
        outcome,
        joined={name: value for report in reports for name, value in report.metrics.items()},
        remarks=tuple(report.remark for report in reports if report.remark),
        met=all(report.ok for report in reports),
    )


def _find_lost_state(trainer: Any) -> MLScaleError | None:
    """Return the error for a fit whose final state should be in a checkpoint and is not: such a run is not done."""
    io = trainer.strategy.checkpoint_io
    if not isinstance(io, VerifiedCheckpointIO):
        return None
    due = [callback.final_saved for callback in trainer.callbacks if isinstance(callback, Checkpoints)]
    known = [saved for saved in due if saved is not None]
    lost = not all(known) if known else io.unsaved  # a user's own callbacks: the last save that was tried
    return io.explain_lost_state() if lost else None


def _load_first_weights(task: pl.LightningModule, initial: InitialWeights, cfg: DictConfig) -> None:
    """Give the task the weights that the run starts from, and print which of them fitted."""
    outputs = cfg.derived.get("num_classes") or cfg.derived.get("targets")

    def read_initial_weights(path: Path) -> Mapping[str, Tensor]:
        # timm adapts its weights to the model's channels and classes, so it must build the model to read them.
        if initial.source == pretrained.TIMM:
            return pretrained.load_timm_weights(initial, partial(build, cfg.model, "model"), outputs)
        return read_weight_file(path)

    strict = cfg.get("init_strict", True)
    matched, lines = load_initial_weights(
        task, initial, classes=outputs, strict=strict, read_weights=read_initial_weights
    )
    # RANK is not set with one device, which trains in the launching process.
    if int(os.environ.get("RANK", "0")) == 0:
        write_match_report(matched, Path(cfg.derived.run_dir))
        print(*lines, sep="\n", file=sys.stderr, flush=True)


def build_data(cfg: DictConfig) -> pl.LightningDataModule | None:
    """Return the data module. A built-in one gets the global batch size; a third-party one gets the per-device batch
    size.
    """
    node = cfg.get("data")
    if not node:
        return None
    supplied: dict[str, Any] = {}
    if has_argument(node, "augment"):
        supplied["augment"] = build(cfg.get("augment"), "augment")
    if takes_device_batch(node):
        supplied["batch_size"] = cfg.derived.per_device_batch
    data = build(node, "data", **supplied)
    if not isinstance(data, pl.LightningDataModule):
        raise MLScaleError(
            f"{node['_target_']} is not a LightningDataModule",
            where="data._target_",
            why=f"it is a {type(data).__name__}",
            fix="a Dataset goes into data._target_=mlscale.data.DatasetData as data.train and data.val",
        )
    return data


def takes_device_batch(node: DictConfig | None) -> bool:
    """Return whether the data module of `node` takes the batch size of one device."""
    # Built-in data modules divide the global batch themselves, so that other device counts see the same batches.
    if not node:
        return False
    return has_argument(node, "batch_size") and not hasattr(import_target(node), "promises")


def is_plain(node: DictConfig | None) -> bool:
    """Return whether `node` names a LightningDataModule that reports no facts, which need not be built to find out."""
    kind = import_target(node) if node else None
    return isinstance(kind, type) and issubclass(kind, pl.LightningDataModule) and not hasattr(kind, "facts")


def build_task(cfg: DictConfig) -> pl.LightningModule:
    """Return the LightningModule, with the model, optimizer and scheduler that it takes."""
    nodes = {name: cfg.get(name) for name in ("model", "optimizer", "scheduler") if has_argument(cfg.task, name)}
    if "model" in nodes:
        nodes["model"] = pretrained.remove_weights_request(nodes["model"])  # they are only loaded before a new fit
    parts = {name: build(node, name) for name, node in nodes.items()}
    task = build(cfg.task, "task", **parts)
    if not isinstance(task, pl.LightningModule):
        raise MLScaleError(
            f"{cfg.task['_target_']} is not a LightningModule",
            where="task._target_",
            why=f"it is a {type(task).__name__}",
            fix=f"model._target_={cfg.task['_target_']} if it is a network: task=classification trains it",
        )
    # A module that torch.compile wraps has other names for its weights: checkpoints must not depend on `compile`.
    use_uncompiled_names(task)
    if isinstance(task, Task):
        rules: Any = OmegaConf.to_container(cfg.get("param_groups") or OmegaConf.create([]), resolve=True)
        task.group_parameters(rules, cfg.get("layer_decay", 1.0))
    return task


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
        "devices": cfg.derived.world_size,
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
    batches = {
        "limit_train_batches": count_epoch_steps(cfg.data, derived.train_samples)[0] * accumulate,
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


def _collect_hyperparameters(cfg: DictConfig) -> dict[str, Any]:
    """Return what trackers show: the composed config, masked, interpolations of the environment unresolved."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    masked: dict[str, Any] = Masker.create_for_run(cfg).mask_tree(
        {str(key): value for key, value in plain.items() if key != "logger"}
    )
    return masked


def collect_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the last value of every logged metric, and what the data has counted."""
    counted: dict[str, float] = getattr(getattr(trainer, "datamodule", None), "counted", {})
    return {name: float(value) for name, value in trainer.callback_metrics.items()} | counted


def _build_fit_outcome(cfg: DictConfig, trainer: pl.Trainer, seconds: float) -> FitOutcome:
    watch, resume = _find_callback(trainer, Stopwatch), _find_callback(trainer, ExactResume)
    batch = (cfg.get("data") or {}).get("batch_size")
    io = trainer.strategy.checkpoint_io
    best = None
    checkpoint = trainer.checkpoint_callback
    if isinstance(checkpoint, pl.callbacks.ModelCheckpoint) and checkpoint.best_model_score is not None:
        best = (checkpoint.best_model_path, float(checkpoint.best_model_score))
    return FitOutcome(
        metrics=collect_metrics(trainer),
        seconds=seconds,
        train_seconds=watch.seconds,
        steps=trainer.global_step,
        samples=watch.steps * batch if batch else None,
        peak_memory_bytes=watch.peak_memory_bytes,
        best=best,
        resumed_step=resume.resumed_step,
        inexact=tuple(_explain_inexactness(trainer, resume)),
        replayed=resume.replayed,
        failed_saves=len(io.failed) if isinstance(io, VerifiedCheckpointIO) else 0,
    )


def _find_callback(trainer: Any, kind: type[T]) -> T:
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))


def _explain_inexactness(trainer: pl.Trainer, resume: ExactResume) -> list[str]:
    """Return the reasons why a resumed fit may not be bitwise identical; empty for a new fit."""
    if resume.resumed_step is None:
        return []
    reasons = list(resume.inexact)
    # The same step gives the same bits on a CPU, for one number of threads.
    if trainer.strategy.root_device.type != "cpu" and not torch.are_deterministic_algorithms_enabled():
        reasons.append("no trainer.deterministic=true")
    if not has_stable_sum_order(trainer.strategy, trainer.world_size):
        reasons.append("this strategy adds up the first step's gradients in another order")
    return reasons
