"""Build the data module and the task that a config names."""

from __future__ import annotations

import contextlib
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mlscale.assembly.build import build
from mlscale.config.targets import has_argument, import_target, takes_group
from mlscale.errors import MLScaleError, call_all
from mlscale.tasks.base import Task
from mlscale.tasks.models import lazy
from mlscale.tasks.optimizers import build_optimizers
from mlscale.train.initial_weights import pretrained
from mlscale.train.precision import set_memory_layout
from mlscale.train.strategies.wrapping import checkpoint_activations, count_classes
from mlscale.train.torch_compile import use_uncompiled_names


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
    # Without a size in the config, that of the class stays: None would mean samples that are not in batches.
    if takes_device_batch(node) and cfg.derived.per_device_batch is not None:
        supplied["batch_size"] = cfg.derived.per_device_batch
    data = build(node, "data", **supplied)
    if not isinstance(data, pl.LightningDataModule):
        raise MLScaleError(
            f"{node['_target_']} is not a LightningDataModule",
            where="data._target_",
            why=f"it is a {type(data).__name__}",
            fix=f"data._target_=mlscale.data.DatasetData data.train._target_={node['_target_']} "
            f"data.val._target_={node['_target_']}, for a Dataset: docs/data.md",
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
    nodes = {name: cfg.get(name) for name in ("model", "optimizer", "scheduler") if takes_group(cfg.task, name)}
    if "model" in nodes:
        nodes["model"] = pretrained.remove_weights_request(nodes["model"])  # they are only loaded before a new fit
    parts = {name: build(node, name) for name, node in nodes.items()}
    task = build(cfg.task, "task", **parts)
    if not isinstance(task, pl.LightningModule):
        raise MLScaleError(
            f"{cfg.task['_target_']} is not a LightningModule",
            where="task._target_",
            why=f"it is a {type(task).__name__}",
            fix=f"model._target_={cfg.task['_target_']} task._target_=mlscale.tasks.Classification, if it is a network",
        )
    # A module that torch.compile wraps has other names for its weights: checkpoints must not depend on `compile`.
    use_uncompiled_names(task)
    if isinstance(task, Task):
        rules: Any = OmegaConf.to_container(cfg.get("param_groups") or OmegaConf.create([]), resolve=True)
        task.group_parameters(rules, cfg.get("layer_decay", 1.0))
    return task


def check_step_settings(cfg: DictConfig) -> None:
    """Build the optimizer and the schedule for one small matrix, and a built-in task around it, before anything runs.

    Args:
        cfg: with its derived values; those that only the data gives may be assumed ones.

    Raises:
        MLScaleError: a class refuses its settings.
    """
    if not str(cfg.task.get("_target_")).startswith("mlscale."):
        return  # a module of the user's calls them as it likes
    matrix = nn.Linear(2, 2, bias=False)
    parts = {name: build(cfg.get(name), name) for name in ("optimizer", "scheduler") if has_argument(cfg.task, name)}
    # What depends on the device, such as a fused step, is refused where the run's parameters are.
    with contextlib.suppress(RuntimeError):
        call_all(
            {
                "optimizer": lambda: build_optimizers(matrix, parts.get("optimizer"), parts.get("scheduler")),
                "task": lambda: build(cfg.task, "task", model=matrix),
            }
        )


def set_up_task(cfg: DictConfig, data: pl.LightningDataModule | None = None) -> tuple[pl.LightningModule, str | None]:
    """Return the task as a run trains it: built, with its layers' shapes, memory layout and activation checkpointing;
    and a line about that to print, if any.

    Args:
        data: gives lazy layers their shapes; None leaves them lazy.
    """
    task = build_task(cfg)
    if isinstance(task, Task) and data is not None and hasattr(data, "facts"):
        # Not in `setup`: DDP has seeded again by then, and weights to start from have been compared with shapes.
        lazy.materialize_layers(task.model, data)
    set_memory_layout(task, cfg.precision.get("memory_format"))
    return task, apply_activation_checkpointing(cfg, task)


def apply_activation_checkpointing(cfg: DictConfig, task: pl.LightningModule) -> str | None:
    """Let the blocks of the task's model compute their activations again in the backward pass, where that is set.

    Returns:
        A line that names them; None where it is not set.

    Raises:
        MLScaleError: the model has no such blocks.
    """
    wanted: Any = cfg.get("activation_checkpointing")
    if not wanted:
        return None
    classes = (cfg.get("strategy") or {}).get("wrap") if wanted is True else wanted
    try:
        blocks = checkpoint_activations(task, list(classes) if classes else None)
    except MLScaleError as error:
        error.unbuilt = True  # nothing has run yet
        raise
    return f"memory    {count_classes(blocks)}: activations are computed again in the backward pass"
