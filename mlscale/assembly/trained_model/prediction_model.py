"""A run's trained model for predictions on raw samples, built from what the run has stored, or else from its data."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlscale.assembly.trained_model.rebuild import Home, load_weights, rebuild_data_and_task, restore_training_config
from mlscale.config.composition.frozen import add_derived
from mlscale.config.derive import LISTS_OF_THE_DATA, OF_THE_DATA, derive_values
from mlscale.data.encoders.stored_encoder import parse_encoder, read_encoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.errors import MLScaleError
from mlscale.runs.recover import DERIVED, read_yaml_values
from mlscale.runs.run_reader import ENCODER
from mlscale.task_types.task_type import AnswerNames, TargetColumn

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import LightningModule

    from mlscale.export.torch_predictor import TorchModel
    from mlscale.task_types.task_type import TaskType


@dataclass(frozen=True)
class PredictionConfig:
    """A run's config for predictions; plain values besides, which can be sent to other processes.

    Attributes:
        cfg: on one device, with what was derived.
        encoder: the document of the encoder, as the run has stored it; None where the data brings it.
        kind: of the encoder.
    """

    cfg: DictConfig
    encoder: Mapping[str, Any] | None
    kind: str


def restore_prediction_config(cfg: DictConfig, home: Path) -> PredictionConfig:
    """Return the config to predict with.

    The run's encoder and facts are those it has stored: its data is read only where it has no encoder, or where other
    settings of the data are typed.

    Args:
        cfg: composed upon the run's frozen config.
        home: the folder of the run, or of a version.

    Raises:
        MLScaleError: the data is read, and is not what the run was trained on.
    """
    from mlscale.assembly.run_data import RunData
    from mlscale.launch.local_devices import detect_local_devices

    trained = read_yaml_values(home / DERIVED)
    typed = {word.lstrip("+~").partition("=")[0].partition(".")[0] for word in cfg.derived.overrides or []}
    if not (home / ENCODER).is_file() or "data" in typed:
        run_data = RunData()
        restored = restore_training_config(cfg, Home(home, trained), run_data)
        document = run_data.describe_data(cfg).encoder
        # A user's own data module prepares samples by itself: they are tensors already.
        return PredictionConfig(restored, None, str(document["kind"]) if document else TensorEncoder.kind)
    cfg = cfg.copy()
    cfg.trainer.devices, cfg.trainer.accumulate_grad_batches = 1, 1
    # Nothing of this run may be logged or saved again.
    cfg.logger, cfg.callbacks = {}, {}
    known = (*OF_THE_DATA, *LISTS_OF_THE_DATA, "train_samples", "val_samples", "decode_version", "label_digest")
    facts = {**{name: trained.get(name) for name in known}, "version": trained.get("data_version")}
    values = derive_values(cfg, facts if facts["train_samples"] else None, detect_local_devices())
    encoder = read_encoder(home / ENCODER)
    restored = add_derived(cfg, {**values, "run_dir": str(home), "name": home.name})
    return PredictionConfig(restored, encoder.to_document(), encoder.kind)


def build_prediction_model(
    cfg: DictConfig,
    checkpoint: Path,
    encoder: Mapping[str, Any] | None,
    *,
    where: str,
    device: str = "cpu",
    precision: str = "32-true",
    batch: int | None = None,
) -> TorchModel:
    """Return a run's model with a checkpoint's weights, in this process.

    Args:
        cfg: of `restore_prediction_config`.
        checkpoint: the file.
        encoder: of the same; None reads the data.
        where: the run, for errors.
        device: see `TorchModel`, as for the next two.
        precision: of the run.
        batch: rows that are computed at once; None for the default.

    Raises:
        MLScaleError: the weights do not fit, the encoder can't be read, or the task gives no row for each sample.
    """
    from mlscale.assembly.run_data import RunData
    from mlscale.export.torch_predictor import BATCH, TorchModel

    batch = batch or BATCH
    if encoder is None:
        data, task = rebuild_data_and_task(cfg, checkpoint, "validate", RunData())
        return TorchModel.wrap_task(task, data, device=device, precision=precision, batch=batch)
    import torch

    from mlscale.assembly.run_parts import build_task
    from mlscale.train.lightning.quiet import suppress_library_messages

    suppress_library_messages()
    torch.set_num_threads(cfg.derived.threads)
    task = build_task(cfg)
    load_weights(task, checkpoint)
    parsed = parse_encoder(encoder, where=f"{where}: {ENCODER}")
    names = _describe_names(cfg)
    task_type = _find_task_type(task, cfg)
    model = TorchModel.build(task, task_type, parsed, names, device=device, precision=precision, batch=batch)
    logits = next((port for port in model.outputs if port.name == "logits"), None)
    if logits is not None and not names.labels:
        # Classes without names are called by their number.
        labels = tuple(map(str, range(logits.shape[1])))
        return replace(model, names=AnswerNames(labels, names.targets))
    return model


def _find_task_type(task: LightningModule, cfg: DictConfig) -> TaskType:
    """Return the type of a task; one that states none classifies if its data has classes."""
    from mlscale.task_types.registry import get_task_type, resolve_task_type
    from mlscale.task_types.tensor_type import TensorType

    if (stated := resolve_task_type(task)) is not None:
        return stated
    return get_task_type("classification") if cfg.derived.get("num_classes") else TensorType()


def _describe_names(cfg: DictConfig) -> AnswerNames:
    """Return the names of classes, and the columns that are predicted with their units, by the config alone."""
    from mlscale.config.targets import import_target
    from mlscale.data.tables.table_rows import TabularData

    labels = tuple(map(str, cfg.derived.get("class_names") or ()))
    kind = import_target(cfg.data) if cfg.get("data") else None
    if not (isinstance(kind, type) and issubclass(kind, TabularData)) or cfg.derived.get("num_classes"):
        return AnswerNames(labels)
    target, units = cfg.data.get("target") or (), _read_units(cfg.data.get("units"))
    columns = [target] if isinstance(target, str) else target
    return AnswerNames(labels, tuple(TargetColumn(str(name), str(units.get(name, ""))) for name in columns))


def _read_units(configured: object) -> Mapping[str, str]:
    """Return the units of a run's columns; none where the file that had them is gone, as the data may be."""
    from mlscale.data.table_parsing.columns import read_column_units

    if not isinstance(configured, str):
        return read_column_units(cast("Mapping[str, object] | None", configured))
    with contextlib.suppress(MLScaleError):
        return read_column_units(configured)
    return {}
