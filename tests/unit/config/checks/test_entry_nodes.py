"""Messages for entries of groups that have several, such as callbacks and loggers, in configs of a few keys."""

from __future__ import annotations

import pytest

from tests.unit.config.checks.small_configs import find_problems

CASES = [
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
  fix:   callbacks=[default,ema] callbacks.ema.every=x
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
  fix:   callbacks.ema.every=3 callbacks.ema.every=x
'callbacks.comet' has no _target_
  where: command line: callbacks.comet
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks.comet._target_=<package.module.Class>
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
        "logger: {mine: {_target_: no_such_package.Mine}}",
        """
the _target_ of 'logger.mine' does not exist: no_such_package.Mine
  where: command line: logger.mine._target_
  why:   no package or module 'no_such_package' in this folder or this environment
  fix:   ~logger.mine, which leaves it out; or cd <the folder that holds no_such_package>, or install no_such_package
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
  fix:   callbacks=[default,ema]
'callbacks.lr_monitr' has no _target_
  where: command line: callbacks.lr_monitr
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,lr_monitor]
""",
    ),
    (
        "callbacks: {ema: {decay: 0.5, evry: 3, start: x}}",
        """
'callbacks.ema' has no _target_
  where: command line: callbacks.ema
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema] callbacks.ema.decay=0.5 callbacks.ema.every=3 callbacks.ema.start=x
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
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks.mixup._target_=<package.module.Class>
""",
    ),
    (
        "callbacks: {ema: {ema_decay: 0.9, update_after: 2, decay_rate: 3}, freeze: {x: 1}}",
        """
unknown key 'callbacks.ema.update_after'
  where: command line: callbacks.ema.update_after
  why:   not supported: the option callbacks=ema takes decay, warmup, every, start, gamma
  fix:   leave callbacks.ema.update_after out
unknown key 'callbacks.ema.decay_rate'
  where: command line: callbacks.ema.decay_rate
  why:   not supported: the option callbacks=ema takes decay, warmup, every, start, gamma
  fix:   leave callbacks.ema.decay_rate out
'callbacks.ema' has no _target_
  where: command line: callbacks.ema
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema] callbacks.ema.decay=0.9
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
  fix:   logger=wandb logger.wandb.entity=a logger.wandb.project=cats
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
'logger.comet' has no _target_
  where: command line: logger.comet
  why:   every entry of 'logger' is an object to build
  fix:   logger.comet._target_=<package.module.Class>
unknown key 'logger.neptune'
  where: command line: logger.neptune
  why:   this tracker is not supported yet
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
        "callbacks: {ema: {decay: x, warmup: 3}}",
        """
'callbacks.ema' has no _target_
  where: command line: callbacks.ema
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,ema] callbacks.ema.decay=x callbacks.ema.warmup=3
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
        "callbacks: {early_stoping: {patience: x}}",
        """
'callbacks.early_stoping' has no _target_
  where: command line: callbacks.early_stoping
  why:   every entry of 'callbacks' is an object to build
  fix:   callbacks=[default,early_stopping] callbacks.early_stopping.patience=x
""",
    ),
]

IN_FILE = [
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
