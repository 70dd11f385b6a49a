"""Messages for groups as a whole, in configs of a few keys: a value instead of a group, and keys of what builds nothing."""
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
  fix:   write `- override /model: resnet` under `defaults:` of the file instead
""",
    ),
    (
        "model: resnett",
        """
'model' is a group of settings, not the value resnett
  where: command line: model
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   write `- override /model: resnet` under `defaults:` of the file instead
""",
    ),
    (
        "model: xyz\nlogger: xyz",
        """
'model' is a group of settings, not the value xyz
  where: command line: model
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   write `- override /model: gpt` under `defaults:` of the file instead
'logger' is a group of settings, not the value xyz
  where: command line: logger
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   write `- override /logger: csv` under `defaults:` of the file instead
""",
    ),
    (
        "callbacks: [default, early_stoping]",
        """
'callbacks' is a group of settings, not the value [default,early_stoping]
  where: command line: callbacks
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   write `- override /callbacks: [default,early_stopping]` under `defaults:` of the file instead
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
        "data: '${derived.run_dirr}'\nderived: {run_dir: null, total_steps: null}",
        """
'data' can't be resolved: ${derived.run_dirr}
  where: command line: data
  why:   unknown key 'derived.run_dirr'; derived has run_dir, total_steps
  fix:   'data=${derived.run_dir}'
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
  why:   model.blocks is a key of model=resnet, model=tabular, model=tabular_regression
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
  fix:   optimizer.lr=0.1
'optimizer.lrr' has no effect: 'optimizer' has no _target_, so it builds nothing
  where: command line: optimizer.lrr
  fix:   optimizer.lr=1
'optimizer.wd' has no effect: 'optimizer' has no _target_, so it builds nothing
  where: command line: optimizer.wd
  fix:   optimizer.weight_decay=1
""",
    ),
    (
        "model: {scheduler: 3}\nscheduler: {intervall: epoch}",
        """
'model.scheduler' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.scheduler
  fix:   model._target_=<package.module.Class>
'scheduler.intervall' has no effect: 'scheduler' has no _target_, so it builds nothing
  where: command line: scheduler.intervall
  fix:   scheduler._target_=<package.module.Class>
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
    ("launch: {scheduler: slurm, nodes: 2, partition: main}", ""),
    (
        "launch: {nodes: 2}",
        """
'launch.nodes' has no effect with launch=local
  where: command line: launch.nodes
  why:   it is a key of launch=kubernetes, launch=skypilot, launch=slurm
""",
    ),
    (
        "launch: {scheduler: skypilot, partition: a, nodes: 2}",
        """
'launch.partition' has no effect with launch=skypilot
  where: command line: launch.partition
  why:   it is a key of launch=slurm
  fix:   launch=slurm launch.partition=a
""",
    ),
    (
        "launch: {scheduler: slurm, namespace: x, volume_path: /mnt}",
        """
'launch.namespace' has no effect with launch=slurm
  where: command line: launch.namespace
  why:   it is a key of launch=kubernetes
  fix:   launch=kubernetes launch.namespace=x
'launch.volume_path' has no effect with launch=slurm
  where: command line: launch.volume_path
  why:   it is a key of launch=kubernetes, launch=skypilot
""",
    ),
    # A scheduler of another package: its keys are not known here.
    ("launch: {scheduler: own, nodes: 2}", ""),
]

IN_FILE = [
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
]


@pytest.mark.parametrize(("config", "messages"), CASES, ids=[case[0] for case in CASES])
def test_messages_for_what_was_typed(config: str, messages: str) -> None:
    assert find_problems(config) == messages.strip("\n")


@pytest.mark.parametrize(("config", "in_file", "messages"), IN_FILE, ids=[case[0] for case in IN_FILE])
def test_messages_for_keys_of_a_file(config: str, in_file: tuple[str, ...], messages: str) -> None:
    assert find_problems(config, in_file) == messages.strip("\n")
