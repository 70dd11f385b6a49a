"""Messages for groups as a whole, in configs of a few keys."""
# ruff: noqa: E501 - messages are compared whole

from __future__ import annotations

import pytest

from tests.unit.config.checks.small_configs import find_problems

CASES = [
    (
        "model: resnet",
        """
'model' is a group of settings, not the value resnet
  where: command line: model
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   under `defaults:` in the file, the line `- override /model: resnet` instead
""",
    ),
    (
        "model: resnett",
        """
'model' is a group of settings, not the value resnett
  where: command line: model
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   under `defaults:` in the file, the line `- override /model: resnet` instead
""",
    ),
    (
        "model: xyz\nlogger: xyz",
        """
'model' is a group of settings, not the value xyz
  where: command line: model
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   under `defaults:` in the file, the line `- override /model: gpt` instead
'logger' is a group of settings, not the value xyz
  where: command line: logger
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   under `defaults:` in the file, the line `- override /logger: csv` instead
""",
    ),
    (
        "callbacks: [default, early_stoping]",
        """
'callbacks' is a group of settings, not the value [default,early_stoping]
  where: command line: callbacks
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   under `defaults:` in the file, the line `- override /callbacks: [default,early_stopping]` instead
""",
    ),
    (
        "logger: {}\naugment: null\nmodel: ''",
        "",
    ),
    (
        "data: '${no.such}'",
        """
'data' can't be resolved: ${no.such}
  where: command line: data
  why:   unknown key 'no.such'
  fix:   data=<value>
""",
    ),
    (
        "seed: 1\nmodel: ${seed}",
        "",
    ),
    (
        "model: {blocks: 2, hidden: 3, in_features: 4, xyz: 1}",
        """
'model.blocks' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.blocks
  fix:   model=resnet model.blocks=2
'model.hidden' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.hidden
  fix:   model=mlp model.hidden=3
'model.in_features' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.in_features
  fix:   model=mlp model.in_features=4
'model.xyz' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.xyz
  fix:   model._target_=<package.module.Class>
""",
    ),
    (
        "optimizer: {lr: 0.1, lrr: 1, wd: 1}",
        """
'optimizer.lr' has no effect: 'optimizer' has no _target_, so it builds nothing
  where: command line: optimizer.lr
  fix:   optimizer=adamw optimizer.lr=0.1
'optimizer.lrr' has no effect: 'optimizer' has no _target_, so it builds nothing
  where: command line: optimizer.lrr
  fix:   optimizer.lr=1
'optimizer.wd' has no effect: 'optimizer' has no _target_, so it builds nothing
  where: command line: optimizer.wd
  fix:   optimizer.weight_decay=1
""",
    ),
    (
        "callbacks: {mine: {x: 1}, ema: {every: x}, nonfinite: null}",
        """
'callbacks.mine' has no _target_
  where: command line: callbacks.mine
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks.mine._target_=<package.module.Class>
'callbacks.ema' has no _target_
  where: command line: callbacks.ema
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema] callbacks.ema.every=<int>
""",
    ),
    (
        "callbacks: {nonfinite: null, emaa: {every: 3, evry: x, foo: 1}, comet: {a: 1}, ema: {foo: 1}, mine: {x: 1}}",
        """
unknown key 'callbacks.emaa.foo'
  where: command line: callbacks.emaa.foo
  why:   not supported: the option callbacks=ema takes decay, warmup, every, start, gamma
  fix:   leave callbacks.emaa.foo out
'callbacks.emaa' has no _target_
  where: command line: callbacks.emaa
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks.ema.every=3 callbacks.ema.every=<int>
'callbacks.comet' is not supported yet
  where: command line: callbacks.comet
  why:   not part of mlscale yet: this tracker
  fix:   logger=csv
unknown key 'callbacks.ema.foo'
  where: command line: callbacks.ema.foo
  why:   not supported: the option callbacks=ema takes decay, warmup, every, start, gamma
  fix:   leave callbacks.ema.foo out
'callbacks.mine' has no _target_
  where: command line: callbacks.mine
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks.mine._target_=<package.module.Class>
""",
    ),
    (
        "callbacks: {early_stopping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: a}, "
        "early_stoping: {patience: 3}}",
        """
'callbacks.early_stoping' has no _target_
  where: command line: callbacks.early_stoping
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks.early_stopping.patience=3
""",
    ),
    (
        "callbacks: {ema: 3, early_stopping: {}}",
        """
'callbacks.ema' has no _target_
  where: command line: callbacks.ema
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema]
""",
    ),
    (
        "callbacks: {ema: true, lr_monitr: 3}",
        """
'callbacks.ema' has no _target_
  where: command line: callbacks.ema
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema,lr_monitor]
'callbacks.lr_monitr' has no _target_
  where: command line: callbacks.lr_monitr
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema,lr_monitor]
""",
    ),
    (
        "callbacks: {ema: {decay: 0.5, evry: 3, start: x}}",
        """
'callbacks.ema' has no _target_
  where: command line: callbacks.ema
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema] callbacks.ema.decay=0.5 callbacks.ema.every=3 callbacks.ema.start=<int>
""",
    ),
    (
        "callbacks: {EarlyStopping: {patience: 3}, mixup: {alpha: 1}}",
        """
'callbacks.EarlyStopping' has no _target_
  where: command line: callbacks.EarlyStopping
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,early_stopping] callbacks.early_stopping.patience=3
'callbacks.mixup' has no _target_
  where: command line: callbacks.mixup
  why:   the α of a Beta distribution; 0 for none; the value is an example
  fix:   augment=mixup augment.mixup=0.0
""",
    ),
    (
        "callbacks: {ema: {ema_decay: 0.9, update_after: 2, decay_rate: 3}, freeze: {x: 1}}",
        """
unknown key 'callbacks.ema.ema_decay'
  where: command line: callbacks.ema.ema_decay
  why:   what one optimizer step keeps of the average
  fix:   callbacks=[default,ema,freeze] callbacks.ema.decay=0.9
unknown key 'callbacks.ema.update_after'
  where: command line: callbacks.ema.update_after
  why:   not supported: the option callbacks=ema takes decay, warmup, every, start, gamma
  fix:   leave callbacks.ema.update_after out
unknown key 'callbacks.ema.decay_rate'
  where: command line: callbacks.ema.decay_rate
  why:   not supported: the option callbacks=ema takes decay, warmup, every, start, gamma
  fix:   leave callbacks.ema.decay_rate out
unknown key 'callbacks.freeze.x'
  where: command line: callbacks.freeze.x
  why:   not supported: the option callbacks=freeze takes modules, until_epoch, until_step, every, norms
  fix:   leave callbacks.freeze.x out
""",
    ),
    (
        "logger: {csv: {_target_: mlscale.train.loggers.csv, save_dir: x}, wandb: {project: cats, name: 3}}",
        """
'logger.wandb' has no _target_
  where: command line: logger.wandb
  why:   every entry of 'logger' is an object to build
  fix:   logger=[csv,wandb] logger.wandb.project=cats "logger.wandb.name='3'"
""",
    ),
    (
        "logger: {wandb: {entity: a, project: cats}, csv: {x: 1}}",
        """
'logger.wandb' has no _target_
  where: command line: logger.wandb
  why:   every entry of 'logger' is an object to build
  fix:   logger=[csv,wandb] logger.wandb.entity=a logger.wandb.project=cats
unknown key 'logger.csv.x'
  where: command line: logger.csv.x
  why:   not supported: the option logger=csv takes save_dir
  fix:   leave logger.csv.x out
""",
    ),
    (
        "logger: {tensorboard: {x: 1}, comet: {a: 1}, neptune: true}",
        """
unknown key 'logger.tensorboard.x'
  where: command line: logger.tensorboard.x
  why:   not supported: the option logger=tensorboard takes save_dir
  fix:   leave logger.tensorboard.x out
'logger.comet' is not supported yet
  where: command line: logger.comet
  why:   not part of mlscale yet: this tracker
  fix:   logger=csv
'logger.neptune' is not supported yet
  where: command line: logger.neptune
  why:   not part of mlscale yet: this tracker
  fix:   logger=csv
""",
    ),
    (
        "compress: {drft: {p_value: 0.1}}",
        """
'compress.drft' has no _target_
  where: command line: compress.drft
  why:   every entry of 'compress' is an object to build
  fix:   compress.drft._target_=<package.module.Class>
""",
    ),
    (
        "compress: {quantise: {bits: 8}, prune: {_target_: torch.nn.Nope}}",
        """
'compress.quantise' has no _target_
  where: command line: compress.quantise
  why:   every entry of 'compress' is an object to build
  fix:   compress.quantise._target_=<package.module.Class>
the _target_ of 'compress.prune' does not exist: torch.nn.Nope
  where: command line: compress.prune._target_
  why:   'torch.nn' has no 'Nope'
  fix:   compress.prune._target_=<package.module.Class>
""",
    ),
    (
        "model: {scheduler: 3}\nscheduler: {intervall: epoch}",
        """
'model.scheduler' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.scheduler
  fix:   scheduler is one of cosine, none, one_cycle, warmup_cosine, warmup_linear
'scheduler.intervall' has no effect: 'scheduler' has no _target_, so it builds nothing
  where: command line: scheduler.intervall
  fix:   scheduler._target_=<package.module.Class>
""",
    ),
    (
        "callbacks: {ema: {decay: x, warmup: 3}}",
        """
'callbacks.ema' has no _target_
  where: command line: callbacks.ema
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema] callbacks.ema.decay=<float> callbacks.ema.warmup=<none or timm or tensorflow or karras or polyak>
""",
    ),
    (
        "scheduler: {scheduler: {_target_: torch.optim.lr_scheduler.StepLR}, intervall: epoch, foo: 1}",
        """
unknown key 'scheduler.intervall'
  where: command line: scheduler.intervall
  why:   Lightning's lr_scheduler takes frequency, interval, monitor, name, reduce_on_plateau, scheduler, strict
  fix:   scheduler.interval=epoch
unknown key 'scheduler.foo'
  where: command line: scheduler.foo
  why:   Lightning's lr_scheduler takes frequency, interval, monitor, name, reduce_on_plateau, scheduler, strict
  fix:   leave scheduler.foo out
'scheduler.scheduler.step_size' is missing
  where: command line: scheduler.scheduler._target_
  why:   torch.optim.lr_scheduler.StepLR requires 'step_size'
  fix:   scheduler.scheduler.step_size=<int>
""",
    ),
    (
        "scheduler: {scheduler: {_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 2}, "
        "interval: epoch}",
        "",
    ),
    (
        "callbacks: {early_stoping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val_loss, "
        "patience: 3}}",
        """
'callbacks.early_stoping' is a second pytorch_lightning.callbacks.EarlyStopping
  where: command line: callbacks.early_stoping
  why:   the option callbacks=early_stopping builds this class; an entry with another name is another object
  fix:   callbacks=[default,early_stopping] callbacks.early_stopping.monitor=val/loss callbacks.early_stopping.patience=3
""",
    ),
    (
        "callbacks: {early_stopping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: a}, "
        "early_stoping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: my_loss, _convert_: all}}",
        """
'callbacks.early_stoping' is a second pytorch_lightning.callbacks.EarlyStopping
  where: command line: callbacks.early_stoping
  why:   the option callbacks=early_stopping builds this class; an entry with another name is another object
  fix:   callbacks.early_stopping.monitor=my_loss
""",
    ),
    (
        "callbacks: {early_stoping: {_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: accuracy, mode: max}}",
        """
'callbacks.early_stoping' is a second lightning.pytorch.callbacks.EarlyStopping
  where: command line: callbacks.early_stoping
  why:   the option callbacks=early_stopping builds this class; an entry with another name is another object
  fix:   callbacks=[default,early_stopping] callbacks.early_stopping.monitor=accuracy callbacks.early_stopping.mode=max
""",
    ),
    (
        "callbacks: {early_stopping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: a}, "
        "early_stoping: {_target_: pytorch_lightning.callbacks.EarlyStopping, _convert_: all}}",
        """
'callbacks.early_stoping' is a second pytorch_lightning.callbacks.EarlyStopping
  where: command line: callbacks.early_stoping
  why:   the option callbacks=early_stopping builds this class; an entry with another name is another object
  fix:   leave callbacks.early_stoping out
'callbacks.early_stoping' lacks monitor
  where: command line: callbacks.early_stoping._target_
  why:   'callbacks.early_stopping' builds the same
  fix:   callbacks.early_stopping._target_=pytorch_lightning.callbacks.EarlyStopping
""",
    ),
    (
        "callbacks: {early_stoping: {_target_: pytorch_lightning.callbacks.EarlyStopping}}",
        """
'callbacks.early_stoping.monitor' is missing
  where: command line: callbacks.early_stoping._target_
  why:   pytorch_lightning.callbacks.EarlyStopping requires 'monitor'
  fix:   callbacks.early_stoping.monitor=<str>
""",
    ),
    (
        "callbacks: {early: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: a}, "
        "early_stoping: {_target_: pytorch_lightning.callbacks.Timer, duration: null}}",
        "",
    ),
    (
        "callbacks: {early_stoping: {patience: x}}",
        """
'callbacks.early_stoping' has no _target_
  where: command line: callbacks.early_stoping
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,early_stopping] callbacks.early_stopping.patience=<int>
""",
    ),
]

IN_FILE = [
    (
        "callbacks: {early_stoping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val_loss}}",
        ("callbacks",),
        "",
    ),
    (
        "model: {blocks: 2, hidden: 3}",
        ("model",),
        """
'model.blocks' has no effect: 'model' has no _target_, so it builds nothing
  where: my.yaml: model.blocks
  fix:   model._target_=<package.module.Class>
'model.hidden' has no effect: 'model' has no _target_, so it builds nothing
  where: my.yaml: model.hidden
  fix:   model._target_=<package.module.Class>
""",
    ),
    (
        "scheduler: {scheduler: {_target_: torch.optim.lr_scheduler.StepLR, step_size: 1}, intervall: epoch}",
        ("scheduler",),
        """
unknown key 'scheduler.intervall'
  where: my.yaml: scheduler.intervall
  why:   Lightning's lr_scheduler takes frequency, interval, monitor, name, reduce_on_plateau, scheduler, strict
  fix:   scheduler.interval=epoch
""",
    ),
    (
        "callbacks: {ema: {every: 3}}",
        ("callbacks",),
        """
'callbacks.ema' has no _target_
  where: my.yaml: callbacks.ema
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema] callbacks.ema.every=3
""",
    ),
]


@pytest.mark.parametrize(("config", "messages"), CASES, ids=[case[0] for case in CASES])
def test_messages_for_what_was_typed(config: str, messages: str) -> None:
    assert find_problems(config) == messages.strip("\n")


@pytest.mark.parametrize(("config", "in_file", "messages"), IN_FILE, ids=[case[0] for case in IN_FILE])
def test_messages_for_keys_of_a_file(config: str, in_file: tuple[str, ...], messages: str) -> None:
    assert find_problems(config, in_file) == messages.strip("\n")
