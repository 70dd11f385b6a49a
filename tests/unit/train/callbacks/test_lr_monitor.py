"""The learning rate of every group, by name."""

from functools import partial
from typing import Any

import pytest
import torch

from mlscale.tasks import Warmup
from mlscale.train.callbacks import LRMonitor, TrainMetrics
from tests.unit.fitting import batches, classifier, fit, trainer
from tests.unit.train.callbacks.test_train_metrics import Recorder


def logged(groups: list[dict[str, Any]], **arguments: Any) -> Recorder:
    """What is written of a fit of a linear layer, whose weight and bias are two groups or one."""

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        weight, bias = parameters
        shares = [[weight], [bias]] if len(groups) > 1 else [[weight, bias]]
        made = [{"params": share, **group} for share, group in zip(shares, groups, strict=True)]
        return torch.optim.AdamW(made, lr=0.1, betas=(0.8, 0.99))

    recorder = Recorder()
    task = classifier(optimizer=optimizer, scheduler=partial(Warmup, total_steps=4, warmup=4))
    fit(trainer(logger=recorder, callbacks=[TrainMetrics(), LRMonitor(**arguments)]), task, batches(4))
    return recorder


def test_groups_are_called_by_name_or_number() -> None:
    found = logged([{"name": "body", "lr": 0.01}, {"lr": 0.1}])
    assert found.of("train/lr/body") == [(1, pytest.approx(0.0075)), (3, pytest.approx(0.01))]
    assert found.of("train/lr/1") == [(1, pytest.approx(0.075)), (3, pytest.approx(0.1))]
    assert found.of("train/lr") == found.of("train/lr/body")


def test_names_that_are_taken_and_other_settings() -> None:
    found = logged([{"name": "x"}, {"name": "x", "weight_decay": 0.5}], momentum=True, weight_decay=True)
    entry = found.entries[0][1]
    assert {name for name in entry if name.startswith("train/lr/")} == {"train/lr/x-0", "train/lr/x-1"}
    assert entry["train/weight_decay/x-1"] == 0.5
    assert entry["train/momentum/x-0"] == 0.8


def test_one_group_is_reported_by_every_run() -> None:
    assert not any(name.startswith("train/lr/") for _, entry in logged([{}]).entries for name in entry)
    assert logged([{"name": "all"}]).of("train/lr/all")
