"""Golden messages: what was typed, and the whole text that answers it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_request
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup

OWN = {
    "shop.py": "class Net:\n    def __init__(self, hidden: int, depth: int = 2) -> None: ...\n",
    "conf/model/typo.yaml": "_target_: shop.Net\nhiden: 64\n",
    "conf/model/lacks.yaml": "_target_: shop.Net\n",
    "conf/model/nowhere.yaml": "_target_: shpo.Net\nhidden: 64\n",
    "conf/model/untargeted.yaml": "hidden: 64\n",
    "conf/optimizer/nested.yaml": "_target_: torch.optim.AdamW\n_partial_: true\n",
    "conf/recipe/bare.yaml": "# @package _global_\nmodel: resnet\n",
    "conf/recipe/foreign.yaml": "# @package _global_\ngpus: 8\ntrainer:\n  precision: bf16-mixed\n",
}

CASES = [
    (
        "scheduler=one_cycle optimizer=nested",
        """
'scheduler.max_lr' can't be resolved: ${optimizer.lr}
  where: conf/scheduler/one_cycle.yaml: scheduler.max_lr
  why:   unknown key 'optimizer.lr'
  fix:   optimizer.lr=<value>
""",
    ),
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
  fix:   trainer.devices=8 trainer.accelerator=gpu
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
  why:   data.batch_size is global: all devices and accumulation together
  fix:   data.batch_size=256
""",
    ),
    (
        "grad_accum=4",
        """
unknown key 'grad_accum'
  where: command line: grad_accum=4
  why:   data.batch_size stays what it is: accumulation divides it
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
  why:   precision=fp16 on GPUs without bfloat16
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
  why:   validations without improvement
  fix:   callbacks=[default,early_stopping] callbacks.early_stopping.patience=3
""",
    ),
    (
        "arch=resnet50",
        """
unknown key 'arch'
  where: command line: arch=resnet50
  fix:   model=resnet18 model._target_=torchvision.models.resnet50
""",
    ),
    (
        "data_dir=/data",
        """
unknown key 'data_dir'
  where: command line: data_dir=/data
  fix:   data.root=/data
""",
    ),
    (
        "wandb_project=cats",
        """
unknown key 'wandb_project'
  where: command line: wandb_project=cats
  fix:   logger=wandb logger.wandb.project=cats
""",
    ),
    (
        "dropout=0.1",
        """
unknown key 'dropout'
  where: command line: dropout=0.1
  why:   not supported: the models set their own layers; a model of yours takes it as an argument of its class
  fix:   leave dropout out
""",
    ),
    (
        "zzz=1",
        """
unknown key 'zzz'
  where: command line: zzz=1
  fix:   mlscale config show prints every key there is
""",
    ),
    (
        "model.hidden=64",
        """
unknown key 'model.hidden'
  where: command line: model.hidden=64
  why:   the width of each hidden layer of the mlp, a list
  fix:   model=mlp model.hidden=[64]
""",
    ),
    (
        "recipe=resnet optimizer.betas=[0.9,0.95]",
        """
unknown key 'optimizer.betas'
  where: command line: optimizer.betas=[0.9,0.95]
  why:   torch.optim.SGD takes no 'betas'
  fix:   optimizer=adamw optimizer.betas=[0.9,0.95]
""",
    ),
    (
        "recipe=resnet batch=32",
        """
unknown key 'batch'
  where: command line: batch=32
  why:   data.batch_size is global: all devices and accumulation together
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
  why:   model.widths and model.blocks make the small ResNet's depth; model=resnet18 is torchvision's
  fix:   model=resnet18
""",
    ),
    (
        "model.filters=9",
        """
unknown key 'model.filters'
  where: command line: model.filters=9
  why:   mlscale.tasks.ResNet takes no 'filters'
  fix:   model=text_cnn model.filters=9
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
        "optimizer.lr=fast",
        """
'optimizer.lr' must be float, not the text 'fast'
  where: command line: optimizer.lr=fast
  fix:   optimizer.lr=0.1
""",
    ),
    (
        "data.batch_size=12.5",
        """
'data.batch_size' must be int, not 12.5
  where: command line: data.batch_size=12.5
  why:   global, over all devices and accumulation
  fix:   data.batch_size=64
""",
    ),
    (
        "data.workers=atuo",
        """
'data.workers' must be int or auto, not the text 'atuo'
  where: command line: data.workers=atuo
  why:   threads that decode, per process
  fix:   data.workers=auto
""",
    ),
    (
        "notes=5",
        """
'notes' must be str, not 5
  where: command line: notes=5
  why:   free text, kept in run.json and given to trackers
  fix:   "notes='5'"
""",
    ),
    (
        "tags=cat",
        """
'tags' must be list[str], not the text 'cat'
  where: command line: tags=cat
  why:   free words, kept in run.json and given to trackers
  fix:   tags=[cat]
""",
    ),
    (
        "trainer.max_epochs=ten",
        """
'trainer.max_epochs' must be int or null, not the text 'ten'
  where: command line: trainer.max_epochs=ten
  fix:   trainer.max_epochs=10
""",
    ),
    (
        "optimizer.betas=[a,b] optimizer=adamw",
        """
'optimizer.betas' must be list[float], not [a,b]
  where: command line: optimizer.betas=[a,b]
  fix:   optimizer.betas=[0.9,0.999]
""",
    ),
    (
        "trainer.precision=bf16-mixed",
        """
'trainer.precision' is not set here
  where: command line: trainer.precision=bf16-mixed
  why:   the group 'precision' owns it
  fix:   precision=bf16
""",
    ),
    (
        "trainer.strategy=ddp_find_unused_parameters_true",
        """
'trainer.strategy' is not set here
  where: command line: trainer.strategy=ddp_find_unused_parameters_true
  why:   the group 'strategy' owns it
  fix:   strategy=ddp strategy.find_unused_parameters=true
""",
    ),
    (
        "trainer.logger=false",
        """
'trainer.logger' is not set here
  where: command line: trainer.logger=false
  why:   the group 'logger' owns it
  fix:   logger=none
""",
    ),
    (
        "trainer.callbacks=early_stopping",
        """
'trainer.callbacks' is not set here
  where: command line: trainer.callbacks=early_stopping
  why:   the group 'callbacks' owns it
  fix:   callbacks=[default,early_stopping]
""",
    ),
    (
        "trainer.num_nodes=2",
        """
'trainer.num_nodes' is not set here
  where: command line: trainer.num_nodes=2
  why:   mlscale starts its processes on this machine; several machines are not supported yet
  fix:   leave trainer.num_nodes out
""",
    ),
    (
        "strategy.world_size=2",
        """
'strategy.world_size' is not set here
  where: command line: strategy.world_size=2
  why:   it is the number of processes
  fix:   trainer.devices=2
""",
    ),
    (
        "derived.total_steps=100",
        """
'derived.total_steps' is filled in at start, never set by hand
  where: command line: derived.total_steps=100
  why:   trainer.max_epochs decides it
  fix:   trainer.max_epochs=<value>
""",
    ),
    (
        "derived.num_classes=7",
        """
'derived.num_classes' is filled in at start, never set by hand
  where: command line: derived.num_classes=7
  why:   it comes from the data and the machine
  fix:   leave derived.num_classes out
""",
    ),
    (
        "data=webdataset",
        """
'data.train' is not set
  where: conf/data/webdataset.yaml: data.train
  why:   shards by path, brace pattern, glob, or folder; a dict names sources to mix
  fix:   data.train=<str or list or dict>

'data.val' is not set
  where: conf/data/webdataset.yaml: data.val
  why:   shards by path, brace pattern, glob, or folder
  fix:   data.val=<str or list>
""",
    ),
    (
        "notes=${oc.env:NO_SUCH_VARIABLE}",
        """
'notes' needs the environment variable NO_SUCH_VARIABLE, which is not set
  where: command line: notes=${oc.env:NO_SUCH_VARIABLE}
  fix:   export NO_SUCH_VARIABLE=…
""",
    ),
    (
        "trainer.max_epochs=${oc.env:TEXT}",
        """
'trainer.max_epochs' must be int or null, ${oc.env:TEXT} is the text 'ten'
  where: command line: trainer.max_epochs=${oc.env:TEXT}
  fix:   trainer.max_epochs=10
""",
    ),
    (
        "trainer.max_epochs=${oc.env:NUMBER}",
        """
'trainer.max_epochs' must be int or null, ${oc.env:NUMBER} is '5'
  where: command line: trainer.max_epochs=${oc.env:NUMBER}
  why:   an environment variable is text until oc.decode reads it
  fix:   'trainer.max_epochs=${oc.decode:${oc.env:NUMBER}}'
""",
    ),
    (
        "tags=${oc.env:LONG}",
        """
'tags' must be list[str], ${oc.env:LONG} is a text of 15 characters
  where: command line: tags=${oc.env:LONG}
  why:   free words, kept in run.json and given to trackers
  fix:   'tags=[${oc.env:LONG}]'
""",
    ),
    (
        "data.batch_size=${name}",
        """
'data.batch_size' must be int, ${name} is the text 'run'
  where: command line: data.batch_size=${name}
  why:   global, over all devices and accumulation
  fix:   data.batch_size=64
""",
    ),
    (
        "scheduler=one_cycle optimizer.lr=fast trainer.max_epochs=${oc.decode:${oc.env:NUMBER}}",
        """
'optimizer.lr' must be float, not the text 'fast'
  where: command line: optimizer.lr=fast
  fix:   optimizer.lr=0.1
""",
    ),
    (
        "optimizer=none scheduler=one_cycle",
        """
'scheduler.max_lr' can't be resolved: ${optimizer.lr}
  where: conf/scheduler/one_cycle.yaml: scheduler.max_lr
  why:   optimizer=none has no 'lr'
  fix:   scheduler=none, or choose an option of optimizer
""",
    ),
    (
        "name=${optimizr.lr}",
        """
'name' can't be resolved: ${optimizr.lr}
  where: command line: name=${optimizr.lr}
  why:   unknown key 'optimizr.lr'
  fix:   'name=${optimizer.lr}'
""",
    ),
    (
        "name=${oc.evn:HOME}",
        """
'name' can't be resolved: ${oc.evn:HOME}
  where: command line: name=${oc.evn:HOME}
  why:   unknown resolver 'oc.evn'
  fix:   'name=${oc.env:HOME}'
""",
    ),
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
        "model=none model.blocks=2",
        """
'model.blocks' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.blocks=2
  fix:   model=resnet model.blocks=2
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
  fix:   precision.value=16
""",
    ),
    (
        "split=test",
        """
unknown key 'split'
  where: command line: split=test
  why:   it is a key of `mlscale evaluate`
  fix:   mlscale evaluate split=test
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
  fix:   change to the folder that holds shpo, or install shpo
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
  fix:   under `defaults:` in the file, the line `- override /model: resnet` instead
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
  fix:   trainer.devices=8 trainer.accelerator=gpu, and take 'gpus' out of the file
""",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("user")
    for name, text in OWN.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(("typed", "message"), CASES, ids=[typed for typed, _ in CASES])
def test_message(folder: Path, monkeypatch: pytest.MonkeyPatch, typed: str, message: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    monkeypatch.setenv("TEXT", "ten")
    monkeypatch.setenv("NUMBER", "5")
    monkeypatch.setenv("LONG", "hunter2-hunter2")
    request = parse_request("train", shlex.split(typed))
    origin = create_origin_lookup("train", request.overrides, request.roots)
    problems = check_config(compose_config(request), groups=request.roots.groups, origin=origin)
    assert "\n\n".join(map(str, problems)) == message.strip("\n")


def test_enough_of_them() -> None:
    assert len(CASES) >= 50
