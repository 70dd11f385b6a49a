"""Messages for objects that were typed where another group owns them, in configs of a few keys."""

from __future__ import annotations

import pytest

from tests.unit.config.checks.small_configs import find_problems

CASES = [
    (
        "task:\n  model: {_target_: torch.nn.Linear}",
        """
'task.model' has no effect: 'task' has no _target_, so it builds nothing
  where: command line: task.model
  fix:   task._target_=<package.module.Class>
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, num_classes: 2, model: {_target_: torch.nn.Linear}}",
        """
'task.model' is not set here
  where: command line: task.model
  why:   the group 'model' owns it
  fix:   model._target_=torch.nn.Linear
""",
    ),
    (
        "net: {_target_: torch.nn.Identity}",
        """
unknown key 'net'
  where: command line: net
  why:   the group 'model' owns it
  fix:   model._target_=torch.nn.Identity
""",
    ),
    (
        "model: {_target_: torch.nn.Identity, optimizer: {_target_: torch.optim.RMSprp, lr: 0.1}}",
        """
the _target_ of 'model.optimizer' does not exist: torch.optim.RMSprp
  where: command line: model.optimizer._target_
  why:   'torch.optim' has no 'RMSprp'
  fix:   model.optimizer._target_=torch.optim.RMSprop
""",
    ),
    (
        "model: {_target_: torch.nn.Identity, optimizer: {_target_: torch.optim.RMSprop, _partial_: false}}",
        """
'model.optimizer.params' is missing
  where: command line: model.optimizer._target_
  why:   torch.optim.RMSprop requires 'params'
  fix:   model.optimizer.params=<value>
""",
    ),
    (
        "model: {_target_: torch.nn.Linear, in_features: 1, out_features: 1, scheduler: {_target_: "
        "torch.optim.lr_scheduler.StepLR}}",
        """
unknown key 'model.scheduler'
  where: command line: model.scheduler
  why:   the group 'scheduler' owns it
  fix:   scheduler._target_=torch.optim.lr_scheduler.StepLR
""",
    ),
    (
        "model: {_target_: torch.nn.Linear, in_features: 1, out_features: 1, scheduler: {_target_: "
        "torch.optim.lr_scheduler.ReduceLROnPlateau}}",
        """
unknown key 'model.scheduler'
  where: command line: model.scheduler
  why:   the group 'scheduler' owns it
  fix:   scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, strategy: {_target_: "
        "pytorch_lightning.strategies.DDPStrategy}}",
        """
'trainer.strategy' is not set here
  where: command line: trainer.strategy
  why:   the group 'strategy' owns it
  fix:   strategy._target_=pytorch_lightning.strategies.DDPStrategy
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, logger: {_target_: pytorch_lightning.loggers.CSVLogger}}",
        """
'trainer.logger' is not set here
  where: command line: trainer.logger
  why:   the group 'logger' owns it; logger is one of csv, mlflow, none, tensorboard, wandb
""",
    ),
    (
        "trainer:\n  _target_: pytorch_lightning.Trainer\n  callbacks: [{_target_: "
        "pytorch_lightning.callbacks.LearningRateMonitor}, 3, {_target_: a}, {_target_: "
        "pytorch_lightning.callbacks.Timerr}, {x: 1}]",
        """
'trainer.callbacks' is not set here
  where: command line: trainer.callbacks
  why:   the group 'callbacks' owns it; callbacks is one of checkpoint, default, device_stats, early_stopping, ema, \
finetune, freeze, grad_norm, lr_monitor, metrics, none, nonfinite, notify, progress, report, samples, \
stall
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, callbacks: {_target_: "
        "pytorch_lightning.callbacks.EMAWeightAveraging}}",
        """
'trainer.callbacks' is not set here
  where: command line: trainer.callbacks
  why:   the group 'callbacks' owns it; callbacks is one of checkpoint, default, device_stats, early_stopping, ema, \
finetune, freeze, grad_norm, lr_monitor, metrics, none, nonfinite, notify, progress, report, samples, \
stall
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, precision: {_target_: torch.nn.Linear}}",
        """
'trainer.precision' is not set here
  where: command line: trainer.precision
  why:   the group 'precision' owns it; precision is one of bf16, bf16_true, fp16, fp16_true, fp32
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, strategy: [{_target_: "
        "pytorch_lightning.strategies.DDPStrategy}, {_target_: pytorch_lightning.strategies.DDPStrategy}]}",
        """
'trainer.strategy' is not set here
  where: command line: trainer.strategy
  why:   the group 'strategy' owns it; strategy is one of auto, ddp, fsdp, single
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, num_classes: 2, model: [{_target_: torch.nn.ReLU}]}",
        """
'task.model' is not set here
  where: command line: task.model
  why:   the group 'model' owns it; model is one of gpt, mlp, ngrams, none, resnet, resnet18, scenes_resnet, \
tabular, tabular_regression, text_cnn, timm, unet, vit
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, num_classes: 2, model: {hidden: [4]}, optimizer: "
        "{lr: 0.3, xyz: 1}}",
        """
'task.model' is not set here
  where: command line: task.model
  why:   the group 'model' owns it
  fix:   model.hidden=[4]
'task.optimizer' is not set here
  where: command line: task.optimizer
  why:   the group 'optimizer' owns it
  fix:   optimizer.lr=0.3 optimizer.xyz=1
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, strategy: {_target_: no_such.Net}}",
        """
'trainer.strategy' is not set here
  where: command line: trainer.strategy
  why:   the group 'strategy' owns it
  fix:   strategy._target_=no_such.Net
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, strategy: {_target_: 3}}",
        """
'trainer.strategy' is not set here
  where: command line: trainer.strategy
  why:   the group 'strategy' owns it
  fix:   strategy._target_=3
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, num_classes: 2, model: {_target_: "
        "'${name}'}}\nname: torch.nn.ReLU",
        """
'task.model' is not set here
  where: command line: task.model
  why:   the group 'model' owns it
  fix:   'model._target_=${name}'
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, num_classes: 2, model: {_target_: shop.Net, hiden: 1}}",
        """
'task.model' is not set here
  where: command line: task.model
  why:   the group 'model' owns it
  fix:   model._target_=shop.Net model.hiden=1
""",
    ),
]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(("config", "messages"), CASES, ids=[case[0] for case in CASES])
def test_messages_for_what_was_typed(config: str, messages: str) -> None:
    assert find_problems(config) == messages.strip("\n")
