"""An object that was typed where another group owns it: the suggestion composes and passes the check."""

from __future__ import annotations

import re
import shlex

import pytest
import pytorch_lightning as pl
import torch

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup
from mlscale.errors import MLScaleError

STEP, PLATEAU = "torch.optim.lr_scheduler.StepLR", "torch.optim.lr_scheduler.ReduceLROnPlateau"
NET = "torchvision.models.resnet18"


def problems(words: list[str]) -> list[MLScaleError]:
    request = parse_command_line("train", words)
    origin = create_origin_lookup("train", request.overrides, request.roots)
    return check_config(compose_config(request), groups=request.roots.groups, origin=origin)


class OwnTask(pl.LightningModule):
    """A user's task that calls what it is given, as that of lightning-hydra-template does."""

    def __init__(self, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("typed", "begins"),
    [
        (f"task.model._target_={NET}", "model=none model._target_="),
        (f"model.net._target_={NET}", "model=none model._target_="),
        (f"net._target_={NET}", "model=none model._target_="),
        ("task.model._target_=torch.nn.Linear", "model=none model._target_="),
        ("task.optimizer._target_=torch.optim.RMSprop task.optimizer.lr=0.1", "optimizer=none optimizer._target_="),
        ("model.optimizer._target_=torch.optim.Adam model.optimizer.lr=0.1", "optimizer=none optimizer._target_="),
        (f"model.scheduler._target_={STEP}", "scheduler=none scheduler._target_="),
        (f"model.scheduler._target_={PLATEAU}", "scheduler=none scheduler.scheduler._target_="),
        (f"task._target_={OwnTask.__module__}.OwnTask task.scheduler._target_={PLATEAU}",
         "scheduler=none scheduler._target_="),
        ("trainer.strategy._target_=pytorch_lightning.strategies.DDPStrategy", "strategy._target_="),
        ("trainer.logger._target_=pytorch_lightning.loggers.CSVLogger", "logger."),
        ("trainer.callbacks=[{_target_:pytorch_lightning.callbacks.LearningRateMonitor}]", "callbacks."),
        ("task.model.hidden=[4]", "model=mlp model.hidden=[4]"),
        ("task.optimizer.lr=0.3", "optimizer.lr=0.3"),
        ("task.optimizer._target_=torch.optim.RMSprp", "optimizer=none optimizer._target_=torch.optim.RMSprop "),
    ],
)  # fmt: skip
def test_it_is_given_to_the_group_that_owns_it(typed: str, begins: str) -> None:
    (problem,) = problems(typed.split())
    assert problem.fix.startswith(begins)
    filled = re.sub("<.*?>", lambda match: "some" if "str" in match[0] else "1", problem.fix)
    own = [word for word in typed.split() if word.startswith("task._target_=")]
    assert problems([*own, *shlex.split(filled)]) == []


@pytest.mark.parametrize("typed", ["task.model._target_=no_such.Net", "trainer.precision._target_=torch.nn.Linear"])
def test_of_what_can_not_be_built_the_options_are_listed(typed: str) -> None:
    (problem,) = problems([typed])
    assert re.fullmatch(r"\w+ is one of \w+(, \w+)+", problem.fix)
