"""Messages for objects: their targets, arguments and values, in configs of a few keys."""

from __future__ import annotations

import pytest

from tests.unit.config.checks.small_configs import find_problems

CASES = [
    (
        "optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: fast, wd: 1}",
        """
'optimizer.lr' must be float, not the text 'fast'
  where: command line: optimizer.lr
unknown key 'optimizer.wd'
  where: command line: optimizer.wd
  why:   torch.optim.AdamW takes no 'wd'
  fix:   optimizer.weight_decay=1
""",
    ),
    (
        "optimizer: {_target_: torch.optim.SGD, lr: 1, params: 3}",
        """
'optimizer.params' is not set here
  where: command line: optimizer.params
  why:   the task gives its own parameters
  fix:   leave optimizer.params out
""",
    ),
    (
        "optimizer: {_target_: torch.optim.AdamW, lr: 0.1, eps: '???', fused: '???'}",
        """
'optimizer.eps' is not set
  where: command line: optimizer.eps
  fix:   optimizer.eps=<float>
'optimizer.fused' is not set
  where: command line: optimizer.fused
  fix:   optimizer.fused=<bool or null>
""",
    ),
    (
        "optimizer: {_target_: torch.optim.AdamW, _check_: 3}",
        """
'optimizer._check_' must be bool, not 3
  where: command line: optimizer._check_
""",
    ),
    (
        "optimizer: {_target_: torch.optim.AdamW, _check_: true, l: 1}",
        """
unknown key 'optimizer.l'
  where: command line: optimizer.l
  why:   torch.optim.AdamW takes no 'l'; optimizer takes lr, weight_decay, betas, eps, amsgrad, maximize, foreach, \
capturable, differentiable, fused
""",
    ),
    (
        "optimizer: {_target_: torch.optim.AdamW, _check_: false, l: 1}",
        "",
    ),
    (
        "optimizer: {_target_: torch.optim.AdamW, lr: '${seed}', eps: '${optimizer.lr}'}\nseed: x",
        """
'seed' must be int from 0 to 4294967295, not the text 'x'
  where: command line: seed
  why:   weights, order and augmentation; the same seed gives a bitwise identical run
""",
    ),
    (
        "optimizer: {_target_: torch.optim.AdamW, eps: '${optimizer.lr}', lr: '${name}', weight_decay: "
        "'${optimizer.eps}'}\nname: abc",
        """
'optimizer.lr' must be float, ${name} is the text 'abc'
  where: command line: optimizer.lr
""",
    ),
    (
        "optimizer: {_target_: torch.optim.AdamW, eps: '${name}', lr: '${name}', foreach: '${seed}'}\nname: "
        "abc\nseed: 3",
        """
'optimizer.eps' must be float, ${name} is the text 'abc'
  where: command line: optimizer.eps
'optimizer.lr' must be float, ${name} is the text 'abc'
  where: command line: optimizer.lr
'optimizer.foreach' must be bool or null, ${seed} is 3
  where: command line: optimizer.foreach
""",
    ),
    (
        "seed: cloud_tpu_v3\nprecision: {value: fp8}",
        """
'seed' must be int from 0 to 4294967295, not the text 'cloud_tpu_v3'
  where: command line: seed
  why:   weights, order and augmentation; the same seed gives a bitwise identical run
""",
    ),
    (
        "optimizer: {_target_: torch.optim.AdamWW, lr: fast}",
        """
the _target_ of 'optimizer' does not exist: torch.optim.AdamWW
  where: command line: optimizer._target_
  why:   'torch.optim' has no 'AdamWW'
  fix:   optimizer._target_=torch.optim.AdamW
""",
    ),
    (
        "optimizer: {_target_: AdamW}",
        """
the _target_ of 'optimizer' does not exist: AdamW
  where: command line: optimizer._target_
  why:   a _target_ is a dotted path: package.module.Class
  fix:   optimizer._target_=<package.module.Class>
""",
    ),
    (
        "optimizer: {_target_: 3}",
        """
the _target_ of 'optimizer' does not exist: 3
  where: command line: optimizer._target_
  why:   a _target_ is a dotted path: package.module.Class
  fix:   optimizer._target_=<package.module.Class>
""",
    ),
    (
        "optimizer: {_target_: no_such_package.Adam}",
        """
the _target_ of 'optimizer' does not exist: no_such_package.Adam
  where: command line: optimizer._target_
  why:   no package or module 'no_such_package' in this folder or this environment
  fix:   cd <the folder that holds no_such_package>, or install no_such_package
""",
    ),
    (
        "name: torch.nn.Linear\nmodel: {_target_: '${name}', in_features: wide}",
        "",
    ),
    (
        "model: {_target_: torch.nn.Sequential, _args_: [{_target_: torch.nn.Linear, in_features: a, out: 3}]}",
        """
'model._args_[0].in_features' must be int, not the text 'a'
  where: command line: model._args_[0].in_features
unknown key 'model._args_[0].out'
  where: command line: model._args_[0].out
  why:   torch.nn.Linear takes no 'out'; model._args_[0] takes in_features, out_features, bias, device, dtype
'model._args_[0].out_features' is missing
  where: command line: model._args_[0]._target_
  why:   torch.nn.Linear requires 'out_features'
  fix:   model._args_[0].out_features=<int>
""",
    ),
    (
        "model: {_target_: torch.nn.Linear, in_feature: 3, out_features: '???'}",
        """
unknown key 'model.in_feature'
  where: command line: model.in_feature
  why:   torch.nn.Linear takes no 'in_feature'
  fix:   model.in_features=3
'model.out_features' is not set
  where: command line: model.out_features
  fix:   model.out_features=<int>
""",
    ),
    (
        "model: {_target_: torch.nn.Linear, in_features: 1, out_features: 1, x: {_target_: torch.nn.Linear}}",
        """
unknown key 'model.x'
  where: command line: model.x
  why:   torch.nn.Linear takes no 'x'; model takes in_features, out_features, bias, device, dtype
""",
    ),
    (
        "model: {_target_: torch.nn.Linear, in_features: 1, out_features: 1, bias: {_target_: torch.nn.Nope}}",
        """
the _target_ of 'model.bias' does not exist: torch.nn.Nope
  where: command line: model.bias._target_
  why:   'torch.nn' has no 'Nope'
  fix:   model.bias._target_=<package.module.Class>
""",
    ),
    (
        "model: {_target_: torch.nn.Linear, _check_: false, x: {_target_: torch.nn.Linear}}",
        """
'model.x.in_features' is missing
  where: command line: model.x._target_
  why:   torch.nn.Linear requires 'in_features'
  fix:   model.x.in_features=<int>
'model.x.out_features' is missing
  where: command line: model.x._target_
  why:   torch.nn.Linear requires 'out_features'
  fix:   model.x.out_features=<int>
""",
    ),
    (
        "model: {_target_: torch.nn.Linear, _partial_: true}",
        "",
    ),
    (
        "model: {_target_: torch.nn.Linear, _partial_: false}",
        """
'model.in_features' is missing
  where: command line: model._target_
  why:   torch.nn.Linear requires 'in_features'
  fix:   model.in_features=<int>
'model.out_features' is missing
  where: command line: model._target_
  why:   torch.nn.Linear requires 'out_features'
  fix:   model.out_features=<int>
""",
    ),
    (
        "model: {_target_: torch.nn.Linear, _args_: [1, 2]}",
        "",
    ),
    (
        "model: {_target_: torchvision.models.VisionTransformer, image_size: 32, num_clases: 10}",
        """
unknown key 'model.num_clases'
  where: command line: model.num_clases
  why:   torchvision.models.VisionTransformer takes no 'num_clases'
  fix:   model.num_classes=10
'model.patch_size' is missing
  where: command line: model._target_
  why:   torchvision.models.VisionTransformer requires 'patch_size'
  fix:   model.patch_size=<int>
'model.num_layers' is missing
  where: command line: model._target_
  why:   torchvision.models.VisionTransformer requires 'num_layers'
  fix:   model.num_layers=<int>
'model.num_heads' is missing
  where: command line: model._target_
  why:   torchvision.models.VisionTransformer requires 'num_heads'
  fix:   model.num_heads=<int>
'model.hidden_dim' is missing
  where: command line: model._target_
  why:   torchvision.models.VisionTransformer requires 'hidden_dim'
  fix:   model.hidden_dim=<int>
'model.mlp_dim' is missing
  where: command line: model._target_
  why:   torchvision.models.VisionTransformer requires 'mlp_dim'
  fix:   model.mlp_dim=<int>
""",
    ),
    (
        "model: {_target_: mlscale.models.mlp.MLP}",
        """
the _target_ of 'model' does not exist: mlscale.models.mlp.MLP
  where: command line: model._target_
  why:   'mlscale' has no 'models'
  fix:   model._target_=<package.module.Class>
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, model: {_target_: torch.nn.ReLU, xyz: {_target_: "
        "torch.nn.Nope}}}",
        """
'task.model' is not set here
  where: command line: task.model
  why:   the group 'model' owns it
  fix:   model._target_=torch.nn.ReLU 'model.xyz={_target_:torch.nn.Nope}'
'task.num_classes' is missing
  where: command line: task._target_
  why:   mlscale.tasks.Classification requires 'num_classes'
  fix:   'task.num_classes=${derived.num_classes}'
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, num_classes: 2, model: resnet}",
        """
'task.model' is not set here
  where: command line: task.model
  why:   the group 'model' owns it
  fix:   model=resnet
""",
    ),
    (
        "callbacks: {notify: {_target_: mlscale.train.callbacks.Notify, mail: {host: 3, prt: 2, to: [a]}}}",
        """
'callbacks.notify.mail.host' must be str or null, not 3
  where: command line: callbacks.notify.mail.host
  why:   the SMTP server
  fix:   "callbacks.notify.mail.host='3'"
unknown key 'callbacks.notify.mail.prt'
  where: command line: callbacks.notify.mail.prt
  why:   'callbacks.notify.mail' takes no 'prt'
  fix:   callbacks.notify.mail.port=2
""",
    ),
    (
        "callbacks: {notify: {_target_: mlscale.train.callbacks.Notify, mail: [3]}}",
        """
'callbacks.notify.mail' must be dict or null, not [3]
  where: command line: callbacks.notify.mail
""",
    ),
    (
        "logger:\n  csv: {_target_: mlscale.train.loggers.csv, save_dir: x}\n  csvv: {_target_: "
        "mlscale.train.loggers.csv}",
        """
'logger.csvv.save_dir' is missing
  where: command line: logger.csvv._target_
  why:   mlscale.train.loggers.csv requires 'save_dir'
  fix:   logger.csvv.save_dir=<str>
""",
    ),
    (
        "callbacks:\n  early: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: loss}\n  earl: "
        "{_target_: pytorch_lightning.callbacks.EarlyStopping}",
        """
'callbacks.earl.monitor' is missing
  where: command line: callbacks.earl._target_
  why:   pytorch_lightning.callbacks.EarlyStopping requires 'monitor'
  fix:   callbacks.earl.monitor=<str>
""",
    ),
    (
        "model:\n  a: {_target_: torch.nn.Linear, in_features: 1, out_features: 2}\n  b: {_target_: torch.nn.Linear}",
        """
'model.a' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.a
  fix:   model._target_=<package.module.Class>
'model.b' has no effect: 'model' has no _target_, so it builds nothing
  where: command line: model.b
  fix:   model._target_=<package.module.Class>
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, devices: 0, precision: 16, plugins: null}",
        """
'trainer.devices' must be int ≥ 1 or -1 or auto, not 0
  where: command line: trainer.devices
  why:   processes on this machine, one per accelerator; on a CPU, any number
'trainer.precision' is not set here
  where: command line: trainer.precision
  why:   the group 'precision' owns it
  fix:   precision=fp16
""",
    ),
]

IN_FILE = [
    (
        "optimizer: {_target_: torch.optim.AdamW, lrr: 1}",
        ("optimizer",),
        """
unknown key 'optimizer.lrr'
  where: my.yaml: optimizer.lrr
  why:   torch.optim.AdamW takes no 'lrr'
  fix:   write 'lr' in place of 'lrr'
""",
    ),
]


@pytest.mark.parametrize(("config", "messages"), CASES, ids=[case[0] for case in CASES])
def test_messages_for_what_was_typed(config: str, messages: str) -> None:
    assert find_problems(config) == messages.strip("\n")


@pytest.mark.parametrize(("config", "in_file", "messages"), IN_FILE, ids=[case[0] for case in IN_FILE])
def test_messages_for_keys_of_a_file(config: str, in_file: tuple[str, ...], messages: str) -> None:
    assert find_problems(config, in_file) == messages.strip("\n")
