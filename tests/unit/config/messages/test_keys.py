"""Golden messages for unknown keys, misspelt or with the names of other tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.messages.golden import check_message

CASES = [
    (
        "trainer.devcies=8",
        """
unknown key 'trainer.devcies'
  where: command line: trainer.devcies=8
  why:   pytorch_lightning.Trainer takes no 'devcies'
  fix:   trainer.devices=8
""",
    ),
    (
        "+trainer.devcies=8",
        """
unknown key 'trainer.devcies'
  where: command line: trainer.devcies=8
  why:   pytorch_lightning.Trainer takes no 'devcies'
  fix:   trainer.devices=8
""",
    ),
    (
        "optimiser.lr=0.2",
        """
unknown key 'optimiser.lr'
  where: command line: optimiser.lr=0.2
  fix:   optimizer.lr=0.2
""",
    ),
    (
        "trainer.lr=0.1",
        """
unknown key 'trainer.lr'
  where: command line: trainer.lr=0.1
  why:   pytorch_lightning.Trainer takes no 'lr'
  fix:   optimizer.lr=0.1
""",
    ),
    (
        "lr=0.1",
        """
unknown key 'lr'
  where: command line: lr=0.1
  fix:   optimizer.lr=0.1
""",
    ),
    (
        "gpus=8",
        """
unknown key 'gpus'
  where: command line: gpus=8
  why:   processes on this machine, one per accelerator; on a CPU, any number
  fix:   trainer.devices=8
""",
    ),
    (
        "epochs=3",
        """
unknown key 'epochs'
  where: command line: epochs=3
  fix:   trainer.max_epochs=3
""",
    ),
    (
        "per_device_train_batch_size=32 trainer.devices=4 trainer.accumulate_grad_batches=2",
        """
unknown key 'per_device_train_batch_size'
  where: command line: per_device_train_batch_size=32
  why:   data.batch_size is global, of all devices and accumulation; that of one device times their number
""",
    ),
    (
        "grad_accum=4",
        """
unknown key 'grad_accum'
  where: command line: grad_accum=4
  why:   forward passes per optimizer step; data.batch_size stays what it is
  fix:   trainer.accumulate_grad_batches=4
""",
    ),
    (
        "fp16=true",
        """
unknown key 'fp16'
  where: command line: fp16=true
  fix:   precision=fp16
""",
    ),
    (
        "amp=true",
        """
unknown key 'amp'
  where: command line: amp=true
  fix:   precision=bf16
""",
    ),
    (
        "num_workers=4",
        """
unknown key 'num_workers'
  where: command line: num_workers=4
  why:   threads that decode, per process
  fix:   data.workers=4
""",
    ),
    (
        "patience=3",
        """
unknown key 'patience'
  where: command line: patience=3
  fix:   callbacks=[default,early_stopping] callbacks.early_stopping.patience=3
""",
    ),
    (
        "arch=resnet50",
        """
unknown key 'arch'
  where: command line: arch=resnet50
  fix:   model._target_=torchvision.models.resnet50
""",
    ),
    (
        "data_dir=/data",
        """
unknown key 'data_dir'
  where: command line: data_dir=/data
  why:   data.root is the folder of data=imagefolder, data.train that of shards and tables
""",
    ),
    (
        "wandb_project=cats",
        """
unknown key 'wandb_project'
  where: command line: wandb_project=cats
  fix:   logger=[csv,wandb] logger.wandb.project=cats
""",
    ),
    (
        "dropout=0.1",
        """
unknown key 'dropout'
  where: command line: dropout=0.1
  why:   model.dropout is a key of model=gpt, model=ngrams, model=tabular, …
""",
    ),
    (
        "zzz=1",
        """
unknown key 'zzz'
  where: command line: zzz=1
""",
    ),
    (
        "model.hidden=64",
        """
unknown key 'model.hidden'
  where: command line: model.hidden=64
  why:   model.hidden is a key of model=mlp
""",
    ),
    (
        "recipe=resnet optimizer.betas=[0.9,0.95]",
        """
unknown key 'optimizer.betas'
  where: command line: optimizer.betas=[0.9,0.95]
  why:   optimizer.betas is a key of optimizer=adamw, optimizer=adamw_8bit
""",
    ),
    (
        "recipe=resnet batch=32",
        """
unknown key 'batch'
  where: command line: batch=32
  why:   global, over all devices and accumulation
  fix:   data.batch_size=32
""",
    ),
    (
        "optimizer._target_=Lion",
        """
the _target_ of 'optimizer' does not exist: Lion
  where: command line: optimizer._target_=Lion
  why:   a _target_ is a dotted path: package.module.Class
  fix:   optimizer._target_=<package.module.Class>
""",
    ),
    (
        "model.depth=18",
        """
unknown key 'model.depth'
  where: command line: model.depth=18
  why:   model.depth is a key of model=vit
""",
    ),
    (
        "model.filters=9",
        """
unknown key 'model.filters'
  where: command line: model.filters=9
  why:   model.filters is a key of model=text_cnn
""",
    ),
    (
        "optmizer=adamw",
        """
unknown key 'optmizer'
  where: command line: optmizer=adamw
  fix:   optimizer=adamw
""",
    ),
    (
        "model=none model.blocks=2",
        """
'model.blocks' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.blocks=2
  why:   model.blocks is a key of model=resnet, model=tabular, model=tabular_regression
""",
    ),
    (
        "logger.wandb.project=cats",
        """
'logger.wandb' has no _target_
  where: command line: logger.wandb.project=cats
  why:   every entry of 'logger' is an object to build
  fix:   logger=[csv,wandb] logger.wandb.project=cats
""",
    ),
    (
        "logger.wandb.projct=cats logger=wandb",
        """
unknown key 'logger.wandb.projct'
  where: command line: logger.wandb.projct=cats
  why:   mlscale.train.loggers.wandb takes no 'projct'
  fix:   logger.wandb.project=cats
""",
    ),
    (
        "callbacks.mine.x=1",
        """
'callbacks.mine' has no _target_
  where: command line: callbacks.mine.x=1
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks.mine._target_=<package.module.Class>
""",
    ),
    (
        "precision.vlue=16",
        """
unknown key 'precision.vlue'
  where: command line: precision.vlue=16
  fix:   "precision.value='16'"
""",
    ),
    (
        "split=test",
        """
unknown key 'split'
  where: command line: split=test
  why:   it is a key of `mlscale evaluate`
""",
    ),
]


@pytest.mark.parametrize(("typed", "message"), CASES, ids=[typed for typed, _ in CASES])
def test_message(folder: Path, monkeypatch: pytest.MonkeyPatch, typed: str, message: str) -> None:
    check_message(folder, monkeypatch, typed, message)


def test_number_of_cases() -> None:
    assert len(CASES) >= 31
