"""The learning rate of every parameter group, where there are several."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from mlscale.train.callbacks.train_metrics import find_train_metrics


class LRMonitor(Callback):
    """A callback that adds the learning rate of each parameter group to the entries of `TrainMetrics`.

    ``train/lr/<group>``, and on request ``train/momentum/<group>`` (of Adam β₁) and ``train/weight_decay/<group>``. A
    group is called by its own `name`, or else its number; with several optimizers the optimizer's goes before.
    Of one group alone, without a name, ``train/lr``, which every run has, is the rate. A step costs nothing: values
    are read when an entry is written.

    Lightning's LearningRateMonitor needs a logger, writes rows of its own between the others, and names by class.

    Args:
        momentum: whether to write the momentum, too.
        weight_decay: whether to write the weight decay, too.
    """

    def __init__(self, momentum: bool = False, weight_decay: bool = False) -> None:
        self.settings = ("lr", *(["momentum"] if momentum else []), *(["weight_decay"] if weight_decay else []))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        find_train_metrics("lr_monitor", trainer)

    def entry(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Return the current settings of every group, by metric name."""
        groups = _list_groups(trainer)
        omitted = {"lr"} if len(groups) == 1 and "name" not in groups[0][1] else set()
        return {
            f"train/{setting}/{name}": float(value)
            for name, group in groups
            for setting in self.settings
            if setting not in omitted and (value := _get_setting(group, setting)) is not None
        }


def _list_groups(trainer: Trainer) -> list[tuple[str, dict[str, Any]]]:
    several = len(trainer.optimizers) > 1
    named_groups = []
    for number, optimizer in enumerate(trainer.optimizers):
        names = [str(group.get("name") or index) for index, group in enumerate(optimizer.param_groups)]
        counts = Counter(names)
        for index, (name, group) in enumerate(zip(names, optimizer.param_groups, strict=True)):
            # Groups may share a name; their metrics may not.
            unique = name if counts[name] == 1 else f"{name}-{index}"
            named_groups.append((f"{number}/{unique}" if several else unique, group))
    return named_groups


def _get_setting(group: dict[str, Any], setting: str) -> Any:
    # Adam has no key "momentum": β₁ is its decay of the mean gradient.
    if setting == "momentum" and "betas" in group:
        return group["betas"][0]
    return group.get(setting)
