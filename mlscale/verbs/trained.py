"""A run's data and task as they were trained, for the verbs that start from its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlscale.config.derive import derive
from mlscale.config.frozen import with_derived
from mlscale.errors import MLScaleError
from mlscale.verbs.evaluate import as_trained, load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from mlscale.runs.folder import RunFolder


def as_it_was_trained(cfg: DictConfig, folder: RunFolder) -> DictConfig:
    """The run's config on one device, with what its data says.

    Raises:
        MLScaleError: the data is not what the run was trained on; its mean and deviation go into the model.
    """
    from mlscale.launch.facts import data_facts
    from mlscale.launch.machine import this_machine

    cfg = cfg.copy()
    cfg.trainer.devices, cfg.trainer.accumulate_grad_batches = 1, 1
    cfg.logger, cfg.callbacks = {}, {}
    facts, trained = data_facts(cfg), folder.derived
    names = {"version": "data_version", "height": "height", "width": "width"}
    for name, derived in names.items():
        if facts is not None and trained.get(derived) not in (None, facts[name]):
            raise MLScaleError(
                "the data is not what the run was trained on",
                where="data",
                why=f"its {name} is {facts[name]}, the run's {trained[derived]}; a model keeps its normalisation",
                fix="leave data.* as the run has it, and the data as it was",
            )
    values = derive(cfg, as_trained(facts, trained), this_machine())
    return with_derived(cfg, {**values, "run_dir": str(folder.path), "name": folder.path.name})


def rebuilt(cfg: DictConfig, checkpoint: Path, stage: str) -> tuple[Any, Any]:
    """The data module, set up for `stage`, and the task with the checkpoint's weights, in this process.

    Args:
        cfg: of `as_it_was_trained`.

    Raises:
        MLScaleError: there is no data, or the weights do not fit.
    """
    import torch

    from mlscale.train.assemble import build_data, build_task
    from mlscale.train.quiet import quiet

    quiet()
    torch.set_num_threads(cfg.derived.threads)
    data, task = build_data(cfg), build_task(cfg)
    if data is None:
        raise MLScaleError("there is no data", where="data", why="a model is compared on validation samples")
    load_weights(task, checkpoint)
    data.prepare_data()
    data.setup(stage)
    return data, task
