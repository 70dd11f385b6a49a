"""Messages for keys in a file, where an override alone would leave them, and for keys of other commands."""

from __future__ import annotations

import pytest

from tests.unit.config.checks.small_configs import find_problems

IN_FILE = [
    (
        "gpus: 8",
        ("gpus",),
        """
unknown key 'gpus'
  where: my.yaml: gpus
  why:   trainer.devices is a key of trainer=default
  fix:   take 'gpus' out of the file
""",
    ),
    (
        "xyz: 8\ntrainer: {_target_: pytorch_lightning.Trainer, devcies: 8, lr: 2, amp: true, xyz: 1}",
        ("xyz", "trainer"),
        """
unknown key 'xyz'
  where: my.yaml: xyz
  fix:   take 'xyz' out of the file
unknown key 'trainer.devcies'
  where: my.yaml: trainer.devcies
  why:   pytorch_lightning.Trainer takes no 'devcies'
  fix:   write 'devices' in place of 'devcies'
unknown key 'trainer.lr'
  where: my.yaml: trainer.lr
  why:   optimizer.lr is a key of optimizer=adamw, optimizer=adamw_8bit, optimizer=sgd
  fix:   take 'trainer.lr' out of the file
unknown key 'trainer.amp'
  where: my.yaml: trainer.amp
  why:   pytorch_lightning.Trainer takes no 'amp'
  fix:   precision=bf16, and take 'trainer.amp' out of the file
unknown key 'trainer.xyz'
  where: my.yaml: trainer.xyz
  why:   pytorch_lightning.Trainer takes no 'xyz'
  fix:   take 'trainer.xyz' out of the file
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, precision: bf16-mixed, num_nodes: 2, logger: false}",
        ("trainer",),
        """
'trainer.precision' is not set here
  where: my.yaml: trainer.precision
  why:   the group 'precision' owns it
  fix:   precision=bf16, and take 'trainer.precision' out of the file
'trainer.num_nodes' is not set here
  where: my.yaml: trainer.num_nodes
  why:   a launcher sets the number of machines: torchrun --nnodes, srun --nodes, or launch=slurm
  fix:   leave trainer.num_nodes out
'trainer.logger' is not set here
  where: my.yaml: trainer.logger
  why:   the group 'logger' owns it
  fix:   logger=none, and take 'trainer.logger' out of the file
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, precision: bf16-mixed}",
        (),
        """
'trainer.precision' is not set here
  where: command line: trainer.precision
  why:   the group 'precision' owns it
  fix:   precision=bf16
""",
    ),
    (
        "optimiser: {lr: 0.2}\nseed: x",
        ("optimiser", "seed"),
        """
unknown key 'optimiser.lr'
  where: my.yaml: optimiser.lr
  why:   optimizer.lr is a key of optimizer=adamw, optimizer=adamw_8bit, optimizer=sgd
  fix:   take 'optimiser.lr' out of the file
'seed' must be int from 0 to 4294967295, not the text 'x'
  where: my.yaml: seed
  why:   weights, order and augmentation; the same seed gives a bitwise identical run
""",
    ),
    (
        "mode: {widths: [8]}",
        ("mode",),
        """
unknown key 'mode.widths'
  where: my.yaml: mode.widths
  why:   model.widths is a key of model=resnet, model=unet
  fix:   take 'mode.widths' out of the file
""",
    ),
    (
        "derived: {width: 3}",
        ("derived",),
        """
'derived.width' is filled in at start, never set by hand
  where: my.yaml: derived.width
  why:   it comes from the data and the machine
  fix:   leave derived.width out
""",
    ),
]

COMMANDS = [
    (
        "evaluate",
        "ref: last\nsplit: test",
        "",
    ),
    (
        "evaluate",
        "ref: last\nsplt: test\nmodel: resnet",
        """
unknown key 'splt'
  where: command line: splt
  fix:   split=test
'model' is a group of settings, not the value resnet
  where: command line: model
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   write `- override /model: resnet` under `defaults:` of the file instead
""",
    ),
    (
        "loadtest",
        "ref: last\nbatch: 2\nurl: 3",
        """
unknown key 'url'
  where: command line: url
""",
    ),
    (
        "lifecycle",
        "lifecycle: {slo: {p99_ms: fast, p98_ms: 1}, foo: {a: 1}}",
        """
'lifecycle.slo.p99_ms' must be float or null, not the text 'fast'
  where: command line: lifecycle.slo.p99_ms
  why:   what 99 % of the answers may take, ms; null for no limit
unknown key 'lifecycle.slo.p98_ms'
  where: command line: lifecycle.slo.p98_ms
  why:   several names are equally near
  fix:   lifecycle.slo.p95_ms=1
         lifecycle.slo.p99_ms=1
unknown key 'lifecycle.foo.a'
  where: command line: lifecycle.foo.a
""",
    ),
    (
        "lifecycle",
        "lifecycle: {slo: 3}",
        """
'lifecycle.slo' is a mapping of keys, not a value
  where: command line: lifecycle.slo
  why:   its keys: lifecycle.slo.p50_ms, lifecycle.slo.p95_ms, lifecycle.slo.p99_ms, lifecycle.slo.max_failures, \
lifecycle.slo.min_requests_per_s
""",
    ),
    (
        "export",
        "ref: last\nfmt: onnx\ntrainer: {a: 1}",
        """
unknown key 'fmt'
  where: command line: fmt
'trainer.a' has no effect: 'trainer' has no _target_, so it builds nothing
  where: command line: trainer.a
  fix:   trainer._target_=<package.module.Class>
""",
    ),
    (
        "serve",
        "port: x\nmodel: {a: 1}\ndata: {b: 2}",
        """
'port' must be int from 0 to 65535, not the text 'x'
  where: command line: port
  why:   the port; 0 for a free one
'model.a' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.a
  fix:   model._target_=<package.module.Class>
'data.b' has no effect: 'data' has no _target_, so it builds nothing
  where: command line: data.b
  fix:   data._target_=<package.module.Class>
""",
    ),
    (
        "estimate",
        "estimate: {instance: 3}\nseed: x",
        """
'estimate.instance' must be str or null, not 3
  where: command line: estimate.instance
  why:   a machine of the price file, such as aws/g5.xlarge
'seed' must be int from 0 to 4294967295, not the text 'x'
  where: command line: seed
  why:   weights, order and augmentation; the same seed gives a bitwise identical run
""",
    ),
]


@pytest.mark.parametrize(("config", "in_file", "messages"), IN_FILE, ids=[case[0] for case in IN_FILE])
def test_messages_for_keys_of_a_file(config: str, in_file: tuple[str, ...], messages: str) -> None:
    assert find_problems(config, in_file) == messages.strip("\n")


@pytest.mark.parametrize(("command", "config", "messages"), COMMANDS, ids=[case[1] for case in COMMANDS])
def test_messages_of_other_commands(command: str, config: str, messages: str) -> None:
    assert find_problems(config, command=command) == messages.strip("\n")
