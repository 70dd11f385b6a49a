"""Golden messages for targets that do not exist, and what is wrong in a file of the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.messages.golden import check_message

CASES = [
    (
        "optimizer._target_=torch.optim.AdamWW",
        """
the _target_ of 'optimizer' does not exist: torch.optim.AdamWW
  where: command line: optimizer._target_=torch.optim.AdamWW
  why:   'torch.optim' has no 'AdamWW'
  fix:   optimizer._target_=torch.optim.AdamW
""",
    ),
    (
        "optimizer._target_=torch.optmi.AdamW",
        """
the _target_ of 'optimizer' does not exist: torch.optmi.AdamW
  where: command line: optimizer._target_=torch.optmi.AdamW
  why:   'torch' has no 'optmi'
  fix:   optimizer._target_=torch.optim.AdamW
""",
    ),
    (
        "optimizer._target_=torcv.optim.SGD",
        """
the _target_ of 'optimizer' does not exist: torcv.optim.SGD
  where: command line: optimizer._target_=torcv.optim.SGD
  why:   no package or module 'torcv' in this folder or this environment
  fix:   optimizer._target_=torch.optim.SGD
""",
    ),
    (
        "trainer._target_=lightning.pytorch.Trainr",
        """
the _target_ of 'trainer' does not exist: lightning.pytorch.Trainr
  where: command line: trainer._target_=lightning.pytorch.Trainr
  why:   'pytorch_lightning' has no 'Trainr'
  fix:   trainer._target_=lightning.pytorch.Trainer
""",
    ),
    (
        "optimizer._target_=torch.optim.sgd",
        """
the _target_ of 'optimizer' does not exist: torch.optim.sgd
  where: command line: optimizer._target_=torch.optim.sgd
  why:   'torch.optim.sgd' is a module, not a class or function
  fix:   optimizer._target_=torch.optim.sgd.SGD
""",
    ),
    (
        "scheduler.scheduler._target_=torch.optim.lr_scheduler.StepLR scheduler=none scheduler.intervall=epoch",
        """
unknown key 'scheduler.intervall'
  where: command line: scheduler.intervall=epoch
  why:   Lightning's lr_scheduler takes frequency, interval, monitor, name, reduce_on_plateau, scheduler, strict
  fix:   scheduler.interval=epoch

'scheduler.scheduler.step_size' is missing
  where: command line: scheduler.scheduler._target_=torch.optim.lr_scheduler.StepLR
  why:   torch.optim.lr_scheduler.StepLR requires 'step_size'
  fix:   scheduler.scheduler.step_size=<int>
""",
    ),
    (
        "model=typo",
        """
unknown key 'model.hiden'
  where: ./conf/model/typo.yaml: model.hiden
  why:   shop.Net takes no 'hiden'
  fix:   write 'hidden' in place of 'hiden'
""",
    ),
    (
        "model=lacks",
        """
'model.hidden' is missing
  where: ./conf/model/lacks.yaml: model._target_
  why:   shop.Net requires 'hidden'
  fix:   model.hidden=<int>
""",
    ),
    (
        "model=nowhere",
        """
the _target_ of 'model' does not exist: shpo.Net
  where: ./conf/model/nowhere.yaml: model._target_
  why:   no package or module 'shpo' in this folder or this environment
  fix:   cd <the folder that holds shpo>, or install shpo
""",
    ),
    (
        "model=untargeted",
        """
'model.hidden' has no effect: 'model' has no _target_, so it builds nothing
  where: ./conf/model/untargeted.yaml: model.hidden
  fix:   model._target_=<package.module.Class>
""",
    ),
    (
        "recipe=bare",
        """
'model' is a group of settings, not the value resnet
  where: ./conf/recipe/bare.yaml: model
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   write `- override /model: resnet` under `defaults:` of the file instead
""",
    ),
    (
        "recipe=foreign",
        """
'trainer.precision' is not set here
  where: ./conf/recipe/foreign.yaml: trainer.precision
  why:   the group 'precision' owns it
  fix:   precision=bf16, and take 'trainer.precision' out of the file

unknown key 'gpus'
  where: ./conf/recipe/foreign.yaml: gpus
  why:   processes on this machine, one per accelerator; on a CPU, any number
  fix:   trainer.devices=8, and take 'gpus' out of the file
""",
    ),
]


@pytest.mark.parametrize(("typed", "message"), CASES, ids=[typed for typed, _ in CASES])
def test_message(folder: Path, monkeypatch: pytest.MonkeyPatch, typed: str, message: str) -> None:
    check_message(folder, monkeypatch, typed, message)


def test_number_of_cases() -> None:
    assert len(CASES) >= 11
