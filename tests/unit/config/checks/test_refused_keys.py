"""Messages for keys that a config does not take, in configs of a few keys."""

from __future__ import annotations

import pytest

from tests.unit.config.checks.small_configs import find_problems

CASES = [
    (
        "ref: last\nsplit: test",
        """
unknown key 'ref'
  where: command line: ref
  why:   it is a key of `mlscale evaluate`, and of export, estimate, verify-resume, profile, serve, loadtest, \
monitor, retrain, compress, predict, drill
unknown key 'split'
  where: command line: split
  why:   it is a key of `mlscale evaluate`
""",
    ),
    (
        "to: preds",
        """
unknown key 'to'
  where: command line: to
  why:   it is a key of `mlscale evaluate`, and of export, prepare, predict
""",
    ),
    (
        "batch: 32",
        """
unknown key 'batch'
  where: command line: batch
  why:   data.batch_size is a key of data=breast_cancer, data=dali, data=diabetes, …
""",
    ),
    (
        "run_name: yolo\nexperiment: {a: 1}",
        """
unknown key 'run_name'
  where: command line: run_name
  fix:   name=yolo
unknown key 'experiment.a'
  where: command line: experiment.a
""",
    ),
    (
        "optimiser: {_target_: torch.optim.SGD, lr: 1}",
        """
unknown key 'optimiser'
  where: command line: optimiser
  why:   the group 'optimizer' owns it
  fix:   optimizer._target_=torch.optim.SGD optimizer.lr=1
""",
    ),
    (
        "optimzer: {_target_: torch.optim.SGD, lr: 1, momntum: 0.5}",
        """
unknown key 'optimzer._target_'
  where: command line: optimzer._target_
  fix:   optimizer._target_=torch.optim.SGD
unknown key 'optimzer.lr'
  where: command line: optimzer.lr
  why:   optimizer.lr is a key of optimizer=adamw, optimizer=adamw_8bit, optimizer=sgd
unknown key 'optimzer.momntum'
  where: command line: optimzer.momntum
  why:   optimizer.momentum is a key of optimizer=sgd
""",
    ),
    (
        "modle: {net: {_target_: torch.nn.ReLU}}",
        """
unknown key 'modle.net'
  where: command line: modle.net
  why:   the group 'model' owns it
  fix:   model._target_=torch.nn.ReLU
""",
    ),
    (
        "max_time: {hours: 1}\nearly_stop: {3: 4}\nmax_tme: {hours: 1}",
        """
unknown key 'max_time.hours'
  where: command line: max_time.hours
unknown key 'early_stop.3'
  where: command line: early_stop.3
unknown key 'max_tme.hours'
  where: command line: max_tme.hours
""",
    ),
    (
        "gpus: 8\nepochs: 3\nlr: 0.1\nbatch_size: x",
        """
unknown key 'gpus'
  where: command line: gpus
  why:   trainer.devices is a key of trainer=default
unknown key 'epochs'
  where: command line: epochs
  why:   trainer.max_epochs is a key of trainer=default
unknown key 'lr'
  where: command line: lr
  why:   optimizer.lr is a key of optimizer=adamw, optimizer=adamw_8bit, optimizer=sgd
unknown key 'batch_size'
  where: command line: batch_size
  why:   data.batch_size is a key of data=breast_cancer, data=dali, data=diabetes, …
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, devcies: 8, lr: 0.1, gpus: 2, xyz: 1, amp: true}",
        """
unknown key 'trainer.devcies'
  where: command line: trainer.devcies
  why:   pytorch_lightning.Trainer takes no 'devcies'
  fix:   trainer.devices=8
unknown key 'trainer.lr'
  where: command line: trainer.lr
  why:   optimizer.lr is a key of optimizer=adamw, optimizer=adamw_8bit, optimizer=sgd
unknown key 'trainer.gpus'
  where: command line: trainer.gpus
  why:   processes on this machine, one per accelerator; on a CPU, any number
  fix:   trainer.devices=2
unknown key 'trainer.xyz'
  where: command line: trainer.xyz
  why:   pytorch_lightning.Trainer takes no 'xyz'
unknown key 'trainer.amp'
  where: command line: trainer.amp
  why:   pytorch_lightning.Trainer takes no 'amp'
  fix:   precision=bf16
""",
    ),
    (
        "foo: {compress: {_target_: torch.nn.ReLU}, register: {_target_: torch.nn.ReLU}}",
        """
unknown key 'foo.compress'
  where: command line: foo.compress
unknown key 'foo.register'
  where: command line: foo.register
""",
    ),
    (
        "early_stop: {3: 4, a: 1}",
        """
unknown key 'early_stop.3'
  where: command line: early_stop.3
unknown key 'early_stop.a'
  where: command line: early_stop.a
""",
    ),
    (
        "precision: {value: 32-true, los_scale: 1, loss_scale: x}",
        """
unknown key 'precision.los_scale'
  where: command line: precision.los_scale
  fix:   precision.loss_scale=1
'precision.loss_scale' must be float > 0, not the text 'x'
  where: command line: precision.loss_scale
  why:   where the scale begins; it halves where gradients overflow
""",
    ),
    (
        "lifecycle: {slo: {p99_ms: 50}}",
        """
unknown key 'lifecycle.slo.p99_ms'
  where: command line: lifecycle.slo.p99_ms
  why:   it is a key of `mlscale lifecycle`
""",
    ),
    (
        "logger: {csv: {_target_: mlscale.train.loggers.csv, save_dir: x, xyz: 1}}",
        """
unknown key 'logger.csv.xyz'
  where: command line: logger.csv.xyz
  why:   mlscale.train.loggers.csv takes no 'xyz'; logger.csv takes save_dir
""",
    ),
    (
        "callbacks: {timer: {_target_: pytorch_lightning.callbacks.Timer, xyz: 1}}",
        """
unknown key 'callbacks.timer.xyz'
  where: command line: callbacks.timer.xyz
  why:   pytorch_lightning.callbacks.Timer takes no 'xyz'; callbacks.timer takes duration, interval, verbose
""",
    ),
    (
        "data: {_target_: shop.Twelve, xyz: 1}",
        """
unknown key 'data.xyz'
  where: command line: data.xyz
  why:   shop.Twelve takes no 'xyz'; data takes a, b, c, d, e, f, g, h, i, j, k, l
""",
    ),
    (
        "data: {_target_: shop.Thirteen, xyz: 1}",
        """
unknown key 'data.xyz'
  where: command line: data.xyz
  why:   shop.Thirteen takes no 'xyz'
""",
    ),
    (
        "deepspeed: true\nsweep: {a: 1}\ntpu: 8\nstrategy: fsdp",
        """
unknown key 'deepspeed'
  where: command line: deepspeed
  why:   strategy=fsdp shards weights; DeepSpeed and other launchers' sharding are not supported yet
unknown key 'sweep.a'
  where: command line: sweep.a
unknown key 'tpu'
  where: command line: tpu
  why:   the devices are cpu, gpu (CUDA, ROCm) and mps
'strategy' is a group of settings, not the value fsdp
  where: command line: strategy
  why:   options are chosen on the command line, or in a file's defaults list
  fix:   write `- override /strategy: fsdp` under `defaults:` of the file instead
""",
    ),
    (
        "nodes: 2\nsync_batchnorm: true\nema: 0.99\nfoo: {_target_: torch.nn.ReLU}",
        """
unknown key 'nodes'
  where: command line: nodes
  fix:   "notes='2'"
unknown key 'sync_batchnorm'
  where: command line: sync_batchnorm
unknown key 'ema'
  where: command line: ema
  fix:   callbacks=[default,ema] callbacks.ema.decay=0.99
unknown key 'foo'
  where: command line: foo
""",
    ),
    (
        "workers: 3\ndata: {_target_: mlscale.data.Table, train: a, target: b, workrs: 2, num_worker: 3}",
        """
unknown key 'workers'
  where: command line: workers
  why:   data.workers is a key of data=dali, data=digits, data=digits_scenes, …
the _target_ of 'data' does not exist: mlscale.data.Table
  where: command line: data._target_
  why:   'mlscale.data' has no 'Table'
  fix:   data._target_=<package.module.Class>
""",
    ),
]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(("config", "messages"), CASES, ids=[case[0] for case in CASES])
def test_messages_for_what_was_typed(config: str, messages: str) -> None:
    assert find_problems(config) == messages.strip("\n")
