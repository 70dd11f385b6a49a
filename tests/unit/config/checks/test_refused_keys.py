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
  why:   it is a key of `mlscale evaluate`, and of export, estimate, …
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
  why:   it is a key of `mlscale evaluate`, and of export, prepare, …
""",
    ),
    (
        "batch: 32",
        """
unknown key 'batch'
  where: command line: batch
  fix:   model=vit model.patch=32
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
  fix:   mlscale config show, which prints every key there is
""",
    ),
    (
        "optimiser: {_target_: torch.optim.SGD, lr: 1}",
        """
unknown key 'optimiser'
  where: command line: optimiser
  why:   the group 'optimizer' owns it
  fix:   optimizer=none optimizer._target_=torch.optim.SGD optimizer._partial_=true optimizer.lr=1
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
  why:   options that have it: optimizer=adamw, optimizer=adamw_8bit, optimizer=sgd
  fix:   optimizer=adamw optimizer.lr=1
unknown key 'optimzer.momntum'
  where: command line: optimzer.momntum
  fix:   optimizer=sgd optimizer.momentum=0.5
""",
    ),
    (
        "modle: {net: {_target_: torch.nn.ReLU}}",
        """
unknown key 'modle.net._target_'
  where: command line: modle.net._target_
  fix:   model._target_=torch.nn.ReLU
""",
    ),
    (
        "max_time: {hours: 1}\nearly_stop: {3: 4}\nmax_tme: {hours: 1}",
        """
unknown key 'max_time.hours'
  where: command line: max_time.hours
  fix:   mlscale config show, which prints every key there is
unknown key 'early_stop'
  where: command line: early_stop
  fix:   callbacks=[default,early_stopping]
unknown key 'max_tme.hours'
  where: command line: max_tme.hours
  fix:   mlscale config show, which prints every key there is
""",
    ),
    (
        "gpus: 8\nepochs: 3\nlr: 0.1\nbatch_size: x",
        """
unknown key 'gpus'
  where: command line: gpus
  fix:   mlscale config show, which prints every key there is
unknown key 'epochs'
  where: command line: epochs
  fix:   mlscale config show, which prints every key there is
unknown key 'lr'
  where: command line: lr
  why:   options that have it: optimizer=adamw, optimizer=adamw_8bit, optimizer=sgd
  fix:   optimizer=adamw optimizer.lr=0.1
unknown key 'batch_size'
  where: command line: batch_size
  fix:   mlscale config show, which prints every key there is
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
  why:   options that have it: optimizer=adamw, optimizer=adamw_8bit, optimizer=sgd
  fix:   optimizer=adamw optimizer.lr=0.1
unknown key 'trainer.gpus'
  where: command line: trainer.gpus
  why:   pytorch_lightning.Trainer takes no 'gpus'
  fix:   trainer.devices=2 trainer.accelerator=gpu
unknown key 'trainer.xyz'
  where: command line: trainer.xyz
  why:   pytorch_lightning.Trainer takes no 'xyz'
  fix:   mlscale config show, which prints every key there is
unknown key 'trainer.amp'
  where: command line: trainer.amp
  why:   precision=fp16 on GPUs without bfloat16
  fix:   precision=bf16
""",
    ),
    (
        "foo: {compress: {_target_: torch.nn.ReLU}, register: {_target_: torch.nn.ReLU}}",
        """
unknown key 'foo.compress'
  where: command line: foo.compress
  why:   the group 'compress' owns it
  fix:   compress.re_lu._target_=torch.nn.ReLU
unknown key 'foo.register'
  where: command line: foo.register
  fix:   mlscale config show, which prints every key there is
""",
    ),
    (
        "early_stop: {3: 4, a: 1}",
        """
unknown key 'early_stop'
  where: command line: early_stop
  fix:   callbacks=[default,early_stopping]
""",
    ),
    (
        "precision: {value: 3, los_scale: 1, loss_scale: x}",
        """
unknown key 'precision.los_scale'
  where: command line: precision.los_scale
  fix:   precision.loss_scale=1
'precision.loss_scale' must be float, not the text 'x'
  where: command line: precision.loss_scale
  why:   where the scale begins; it halves where gradients overflow
  fix:   'precision.loss_scale=<float>'
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
  why:   mlscale.train.loggers.csv takes no 'xyz'
  fix:   logger.csv.save_dir=<value>
""",
    ),
    (
        "callbacks: {timer: {_target_: pytorch_lightning.callbacks.Timer, xyz: 1}}",
        """
unknown key 'callbacks.timer.xyz'
  where: command line: callbacks.timer.xyz
  why:   pytorch_lightning.callbacks.Timer takes no 'xyz'
  fix:   callbacks.timer.<duration|interval|verbose>=<value>
""",
    ),
    (
        "data: {_target_: shop.Twelve, xyz: 1}",
        """
unknown key 'data.xyz'
  where: command line: data.xyz
  why:   shop.Twelve takes no 'xyz'
  fix:   data.<a|b|c|d|e|f|g|h|i|j|k|l>=<value>
""",
    ),
    (
        "data: {_target_: shop.Thirteen, xyz: 1}",
        """
unknown key 'data.xyz'
  where: command line: data.xyz
  why:   shop.Thirteen takes no 'xyz'
  fix:   mlscale config show, which prints every key there is
""",
    ),
    (
        "deepspeed: true\nsweep: {a: 1}\ntpu: 8\nstrategy: fsdp",
        """
'deepspeed=true' is not supported yet
  where: command line: deepspeed
  why:   not part of mlscale yet: DeepSpeed, and other launchers' sharding; near to it: strategy=fsdp
'sweep.a=1' is not supported yet
  where: command line: sweep.a
  why:   not part of mlscale yet: a search for hyper-parameters; near to it: -m optimizer.lr=0.1,0.01
unknown key 'tpu'
  where: command line: tpu
  why:   not supported: trainer.accelerator is cpu, gpu (CUDA, ROCm) or mps; CUDA_VISIBLE_DEVICES picks the devices
  fix:   leave tpu out
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
  why:   processes that torchrun or srun has started on several machines join one run without a key
  fix:   launch=slurm launch.nodes=2
unknown key 'sync_batchnorm'
  where: command line: sync_batchnorm
  fix:   mlscale config show, which prints every key there is
unknown key 'ema'
  where: command line: ema
  why:   what one optimizer step keeps of the average
  fix:   callbacks=[default,ema] callbacks.ema.decay=0.99
unknown key 'foo'
  where: command line: foo
  fix:   mlscale config show, which prints every key there is
""",
    ),
    (
        "workers: 3\ndata: {_target_: mlscale.data.Table, train: a, target: b, workrs: 2, num_worker: 3}",
        """
unknown key 'workers'
  where: command line: workers
  why:   mlscale.data.Table has no workers
  fix:   leave workers out
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
