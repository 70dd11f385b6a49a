"""One pass of a model over a split: its metrics, and the values that are gathered of each sample."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.assembly.trained_model.rebuild import (
    apply_training_facts,
    check_encoded_alike,
    find_checkpoint_file,
    load_weights,
    normalise_as_trained,
)
from mlscale.config.composition.frozen import add_derived
from mlscale.config.derive import derive_values
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_search import find_best_checkpoint_file
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.runs.remote_checkpoints.run_store import restore_missing
from mlscale.train.lightning.trainer_parts import get_callbacks

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import LightningDataModule

    from mlscale.assembly.run_data import RunData
    from mlscale.evaluate.sample_collector import EvaluatedSamples
    from mlscale.evaluate.samples_table import SampleTable
    from mlscale.evaluate.slices import SliceColumns
    from mlscale.task_types.collected_samples import TaskInfo
    from mlscale.versions.trained_model import TrainedModel

_SHOWN = 10  # classes in a message
FULL_SPLIT_SETTINGS = {
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "overfit_batches": 0.0,
    "fast_dev_run": False,
}
"""Settings of the trainer with which every sample is measured."""


@dataclass
class EvaluationPass:
    """A model, its data, and the results of one pass over a split.

    Attributes:
        label: what the model is called in sentences.
        metrics: what the task logs, and what the data has counted.
        gathered: of each sample; None if the task reports nothing about samples.
        slice_columns: columns to slice by.
        reason: why nothing was gathered.
        checkpoint: the file whose weights were measured.
    """

    label: str
    metrics: dict[str, float]
    gathered: EvaluatedSamples | None = None
    slice_columns: SliceColumns | None = None
    reason: str = ""
    checkpoint: Path | None = None


def _names_data(typed: set[str]) -> bool:
    return any(key in ("data", "recipe", "like") or key.startswith("data.") for key in typed)


def _suggest_data(servable: Path) -> str:
    from mlscale.assembly.trained_model.servable_settings import read_servable_task

    task = read_servable_task(servable)
    return task.suggest_command(shlex.quote(str(servable))) if task else "data=<option>, and its data"


def prepare_evaluation_config(cfg: DictConfig, subject: TrainedModel, run_data: RunData) -> tuple[DictConfig, int]:
    """Return the config on one device, with the facts of its data and the model's own shape; and the number of devices
    that trained the model.

    Args:
        run_data: whose facts they are, and which the pass then takes.

    Raises:
        MLScaleError: several devices are asked for; the data does not fit the model.
    """

    from mlscale.launch.local_devices import detect_local_devices
    from mlscale.runs.recover import DERIVED, read_yaml_values

    # The frozen config holds the run's number of devices: only a typed one is a mistake here.
    typed = {word.lstrip("+").partition("=")[0] for word in cfg.derived.overrides or []}
    if "trainer.devices" in typed and str(cfg.trainer.devices) != "1":
        raise MLScaleError(
            "a model is measured in one process",
            where=f"trainer.devices={cfg.trainer.devices}",
            why="so each sample counts exactly once",
            fix="leave trainer.devices out; mlscale predict spreads samples over devices",
        )
    if subject.servable is not None and subject.home is None and not _names_data(typed):
        # The default data is another one, whose classes may even have the same names.
        raise MLScaleError(
            "the data of this servable is not known",
            where=str(subject.servable),
            why="the run that it was exported from is not in this folder's runs, and no data is named",
            fix=_suggest_data(subject.servable),
        )
    cfg = cfg.copy()
    cfg.trainer.devices, cfg.trainer.accumulate_grad_batches = 1, 1
    for (
        key,
        whole,
    ) in FULL_SPLIT_SETTINGS.items():  # what held training to a part of the data, such as debug=limit, is not inherited
        if key in cfg.trainer and f"trainer.{key}" not in typed:
            cfg.trainer[key] = whole
    # Trackers of the training run must not get rows of an evaluation, and its callbacks (checkpoints, early stopping)
    # act on a fit.
    cfg.logger, cfg.callbacks = {}, {}
    facts = run_data.collect_facts(cfg)
    trained: dict[str, Any] = {}
    if subject.home is not None:
        trained = read_yaml_values(subject.home / DERIVED)
        if subject.servable is None:  # it encodes samples itself, and knows its classes by name
            check_encoded_alike(cfg, subject.home, facts, trained)
        facts = apply_training_facts(facts, trained)
    derived = derive_values(cfg, facts, detect_local_devices())
    home = subject.run or subject.home or Path.cwd()
    resolved_cfg = add_derived(cfg, {**derived, "run_dir": str(home), "name": home.name})
    return resolved_cfg, trained.get("world_size") or 1


def choose_checkpoint(subject: TrainedModel, cfg: DictConfig) -> tuple[Path, bool]:
    """Return a checkpoint's file, and whether it is used instead of a best one that the run does not have: none was
    typed, and nothing was validated in training.
    """
    chosen = str(subject.checkpoint)
    if subject.run is None:
        return Path(chosen), False
    folder = subject.run / "checkpoints"
    restore_missing(subject.run, chosen)
    typed = any(word.lstrip("+").startswith("checkpoint=") for word in cfg.derived.overrides or [])
    none = not typed and chosen == "best" and find_best_checkpoint_file(folder, cfg.metric, cfg.mode) is None
    instead = none and is_checkpoint(folder / "last.ckpt")
    return find_checkpoint_file(subject.run, "last" if instead else chosen, cfg.metric, cfg.mode), instead


def evaluate_checkpoint(
    cfg: DictConfig, path: Path, label: str, table: SampleTable | None, run_data: RunData
) -> EvaluationPass:
    """Validate or test once, and gather what the task reports about each sample.

    Args:
        cfg: of `prepare_evaluation_config`.
        path: the checkpoint.
        label: what the model is called.
        table: gets every sample; None for none.
    """
    from mlscale.assembly.fit_outcome import collect_metrics
    from mlscale.assembly.hook_layers import WeightsAfterSetup, has_own_setup
    from mlscale.assembly.run import assemble_parts
    from mlscale.evaluate.collect_predictions import PredictionCollector, find_measured_type
    from mlscale.evaluate.sample_collector import SampleCollector

    parts = assemble_parts(cfg, run_data)
    # Before the loaders start: mean and deviation of this data would give the model other inputs than it was trained
    # on.
    normalise_as_trained(parts.data, cfg)
    if has_own_setup(parts.task):
        get_callbacks(parts.trainer).append(WeightsAfterSetup(lambda task: load_weights(task, path, parts.data)))
    else:
        load_weights(parts.task, path)
    task_type, gather = find_measured_type(parts.task), None
    if task_type is not None:
        about = describe_evaluated_data(parts.data, cfg.derived)
        about = replace(about, positive=_find_positive(cfg, about.labels))
        gather = SampleCollector(task_type, about, table, worst=cfg.worst, seed=cfg.seed)
        get_callbacks(parts.trainer).append(PredictionCollector(gather))
    passes: Any = parts.trainer.validate if cfg.split == "val" else parts.trainer.test
    passes(parts.task, datamodule=parts.data, verbose=False)
    metrics = collect_metrics(parts.trainer)
    if gather is None:
        return EvaluationPass(
            label, metrics, reason="the task reports nothing of single samples: its class states no kind"
        )
    gathered = gather.collect_samples()
    return EvaluationPass(
        label, metrics, gathered, read_slice_columns(cfg, parts.data, gathered) if len(gathered) else None
    )


def evaluate_servable(
    cfg: DictConfig, folder: Path, label: str, table: SampleTable | None, run_data: RunData
) -> EvaluationPass:
    """Send each raw sample of a split to a servable, as a client would.

    Args:
        cfg: of `prepare_evaluation_config`: its data is read, its model is not built.
        folder: of the servable.
        label: what the model is called.
        table: gets every sample; None for none.
    """
    from mlscale.evaluate.sample_collector import SampleCollector
    from mlscale.evaluate.servable_pass import check_servable_measurable, collect_servable_samples
    from mlscale.export.servable import load
    from mlscale.task_types.collected_samples import TaskInfo

    servable = load(folder, threads=cfg.derived.threads)
    check_servable_measurable(servable)
    data: Any = run_data.build_module(cfg)
    if data is None:
        raise MLScaleError("no data is configured", where="data", fix="data=webdataset data.val=<shards>")
    data.prepare_data()
    # No Trainer here: the data module's hooks are called by hand, in Lightning's order.
    data.setup("validate" if cfg.split == "val" else "test")
    targets = tuple(target.name for target in servable.names.targets)
    about = TaskInfo(labels=servable.labels, targets=targets, positive=_find_positive(cfg, servable.labels))
    gather = SampleCollector(servable.task_type, about, table, worst=cfg.worst, seed=cfg.seed)
    collect_servable_samples(servable, data, cfg.split, gather)
    gathered = gather.collect_samples()
    columns = read_slice_columns(cfg, data, gathered) if len(gathered) else None
    return EvaluationPass(label, dict(getattr(data, "counted", {})), gathered, columns)


def describe_evaluated_data(data: LightningDataModule | None, derived: Mapping[str, Any]) -> TaskInfo:
    """Return the facts of the data that a model is measured on, and the classes or targets of the model."""
    from mlscale.evaluate.sample_collector import describe_task_info

    return describe_task_info(data, derived.get("class_names"), derived.get("num_classes"))


def _find_positive(cfg: DictConfig, labels: Sequence[str]) -> int | None:
    """Return the number of the class that `positive` names; None where it is not set."""
    if cfg.positive is None:
        return None
    # As text: YAML reads `true` and `1` as what they look like.
    wanted = str(cfg.positive).casefold()
    if len(labels) == 2 and (named := [number for number in (0, 1) if labels[number].casefold() == wanted]):
        return named[0]
    raise MLScaleError(
        f"positive={cfg.positive} is not one of two classes",
        where="positive",
        why=f"the classes are {', '.join(labels[:_SHOWN]) or 'not known'}",
        fix="leave positive out: curves are of two classes, and by default of the rarer one",
    )


def read_slice_columns(cfg: DictConfig, data: LightningDataModule | None, gathered: EvaluatedSamples) -> SliceColumns:
    """Return the columns that `slices` names.

    Raises:
        MLScaleError: the file or member does not exist.
    """
    from mlscale.evaluate import slices

    columns: dict[str, Any] = {}
    for word in _list_slices(cfg):
        if _is_file(word):
            columns |= slices.read_csv_columns(word, gathered.keys)
        else:
            columns |= _read_member_columns(cfg, data, gathered, word)
    return columns


def check_slices(cfg: DictConfig) -> None:
    """Read the files that `slices` names, so that a wrong one is reported before the pass.

    Raises:
        MLScaleError: one can't be read, or has no columns.
    """
    from mlscale.evaluate import slices

    for word in _list_slices(cfg):
        if _is_file(word):
            slices.read_csv_lines(word)


def _is_file(word: str) -> bool:
    return word.endswith(".csv") or os.sep in word


def _list_slices(cfg: DictConfig) -> list[str]:
    return [cfg.slices] if isinstance(cfg.slices, str) else [str(word) for word in cfg.slices or []]


def _read_member_columns(
    cfg: DictConfig, data: LightningDataModule | None, gathered: EvaluatedSamples, extension: str
) -> dict[str, Any]:
    """Return columns from a member of each sample of shards."""
    from mlscale.data.images.image_modules import WebDataset
    from mlscale.evaluate import slices

    if not isinstance(data, WebDataset):
        raise MLScaleError(
            f"these samples have no member '.{extension}' to slice by",
            where="slices",
            why="slices are members of WebDataset shards, or CSV files",
            fix="slices=slices.csv, with lines of key,value",
        )
    source = data.get_decoded_split(cfg.split).source
    rows = {source.get_key(row): row for row in range(len(source))}
    try:
        contents = data.read_members(cfg.split, extension)
    except MLScaleError as error:
        fix = "slices=<one of these>, or a CSV file of key,value lines"
        raise MLScaleError(error.what, where=f"slices={extension}", why=error.why, fix=fix) from error
    columns = slices.parse_member_columns(extension, contents)
    return {name: [values[rows[key]] for key in gathered.keys] for name, values in columns.items()}
