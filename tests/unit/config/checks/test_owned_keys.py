"""Messages for arguments that other keys own, and for keys at the top, in configs of a few keys."""

from __future__ import annotations

import pytest

from tests.unit.config.checks.small_configs import find_problems

CASES = [
    (
        "derived: {width: 3, name: null, run_dir: x, world_size: 3}",
        """
'derived.width' is filled in at start, never set by hand
  where: command line: derived.width
  why:   it comes from the data and the machine
  fix:   leave derived.width out
'derived.run_dir' is filled in at start, never set by hand
  where: command line: derived.run_dir
  why:   runs_dir decides it
  fix:   runs_dir=<value>
'derived.world_size' is filled in at start, never set by hand
  where: command line: derived.world_size
  why:   trainer.devices decides it
  fix:   trainer.devices=<value>
""",
    ),
    (
        "derived: 3",
        """
'derived' is a mapping of keys, not a value
  where: command line: derived
  why:   its keys: derived.run_dir, derived.name, derived.num_classes, derived.channels, derived.height, \
derived.width, derived.features, derived.length, derived.vocab_size, derived.tokenizer, derived.bytes_per_token, \
derived.document_end
""",
    ),
    (
        "seed: [1]\nfoo: {a: 1, b: {}}\nname: '???'",
        """
'seed' must be int from 0 to 4294967295, not [1]
  where: command line: seed
  why:   weights, order and augmentation; the same seed gives a bitwise identical run
  fix:   seed=1
unknown key 'foo.a'
  where: command line: foo.a
unknown key 'foo.b'
  where: command line: foo.b
'name' is not set
  where: command line: name
  why:   names the run folder, and the run in every tracker
  fix:   name=<str>
""",
    ),
    (
        "tags: x\nmode: 3\nmodl: 3",
        """
'tags' must be list[str], not the text 'x'
  where: command line: tags
  why:   free words, kept in run.json and given to trackers
  fix:   tags=[x]
'mode' must be max or min, not 3
  where: command line: mode
  why:   whichever of the metric is better; by default what its name implies
unknown key 'modl'
  where: command line: modl
  why:   mode takes max or min
""",
    ),
    (
        "mode: {widths: [8]}",
        """
unknown key 'mode.widths'
  where: command line: mode.widths
  why:   model.widths is a key of model=resnet, model=unet
""",
    ),
    (
        "mode: {widths: [8]}\nmetric: ${mode}\nname: ${mode}",
        """
unknown key 'mode.widths'
  where: command line: mode.widths
  why:   model.widths is a key of model=resnet, model=unet
""",
    ),
    (
        "mode: {}",
        """
unknown key 'mode'
  where: command line: mode
  why:   mode takes max or min
""",
    ),
    (
        "metric: {a: 1}",
        """
'metric' must be str, not {a:1}
  where: command line: metric
  why:   picks the best checkpoint and sorts a sweep; by default what the task is judged by, or val/loss
""",
    ),
    (
        "model: {_target_: torch.nn.Linear, in_features: 1, out_features: 2, xyz: {_target_: a.b}, bia: {a: 1, b: 2}}",
        """
unknown key 'model.xyz'
  where: command line: model.xyz
  why:   torch.nn.Linear takes no 'xyz'; model takes in_features, out_features, bias, device, dtype
unknown key 'model.bia.a'
  where: command line: model.bia.a
  why:   torch.nn.Linear takes no 'bia'
unknown key 'model.bia.b'
  where: command line: model.bia.b
  why:   torch.nn.Linear takes no 'bia'
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, precision: bf16-mixed, strategy: ddp, logger: "
        "false, callbacks: early_stopping, num_nodes: 2, default_root_dir: x}",
        """
'trainer.precision' is not set here
  where: command line: trainer.precision
  why:   the group 'precision' owns it
  fix:   precision=bf16
'trainer.strategy' is not set here
  where: command line: trainer.strategy
  why:   the group 'strategy' owns it
  fix:   strategy=ddp
'trainer.logger' is not set here
  where: command line: trainer.logger
  why:   the group 'logger' owns it
  fix:   logger=none
'trainer.callbacks' is not set here
  where: command line: trainer.callbacks
  why:   the group 'callbacks' owns it
  fix:   callbacks=[default,early_stopping]
'trainer.num_nodes' is not set here
  where: command line: trainer.num_nodes
  why:   a launcher sets the number of machines: torchrun --nnodes, srun --nodes, or launch=slurm
  fix:   leave trainer.num_nodes out
'trainer.default_root_dir' is not set here
  where: command line: trainer.default_root_dir
  why:   everything of a run is in its run folder; the folder in which run folders are made
  fix:   runs_dir=x
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, precision: 7, strategy: deepspeed_stage_2, "
        "enable_checkpointing: false}",
        """
'trainer.precision' is not set here
  where: command line: trainer.precision
  why:   the group 'precision' owns it; precision is one of bf16, bf16_true, fp16, fp16_true, fp32
'trainer.strategy' is not set here
  where: command line: trainer.strategy
  why:   the group 'strategy' owns it; strategy=fsdp shards weights; DeepSpeed and other launchers' sharding are not \
supported yet
'trainer.enable_checkpointing' is not set here
  where: command line: trainer.enable_checkpointing
  why:   the group 'callbacks' has what writes checkpoints
  fix:   ~callbacks.checkpoint
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, precision: fp8}",
        """
'trainer.precision' is not set here
  where: command line: trainer.precision
  why:   the group 'precision' owns it; 8 bits and less in training, and float64, are not supported yet
""",
    ),
    (
        "trainer: {_target_: pytorch_lightning.Trainer, strategy: {find_unused_parameters: true}, logger: "
        "{xyz: 1}, callbacks: {}}",
        """
'trainer.strategy' is not set here
  where: command line: trainer.strategy
  why:   the group 'strategy' owns it
  fix:   strategy.find_unused_parameters=true
'trainer.logger' is not set here
  where: command line: trainer.logger
  why:   the group 'logger' owns it; logger is one of csv, mlflow, none, tensorboard, wandb
'trainer.callbacks' is not set here
  where: command line: trainer.callbacks
  why:   the group 'callbacks' owns it; callbacks is one of checkpoint, default, device_stats, early_stopping, ema, \
finetune, freeze, grad_norm, lr_monitor, metrics, none, nonfinite, notify, progress, report, samples, \
stall
""",
    ),
    (
        "strategy: {_target_: mlscale.train.strategies.ddp, world_size: 2}",
        """
'strategy.world_size' is not set here
  where: command line: strategy.world_size
  why:   it is the number of processes; trainer.devices is a key of trainer=default
""",
    ),
    (
        "optimizer: {_target_: torch.optim.SGD, params: 3, lrr: x}",
        """
'optimizer.params' is not set here
  where: command line: optimizer.params
  why:   the task gives its own parameters
  fix:   leave optimizer.params out
unknown key 'optimizer.lrr'
  where: command line: optimizer.lrr
  why:   optimizer.lr takes float ≥ 0
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, num_classes: 2, optimizer: adamw, scheduler: "
        "cosine, model: gpt3}",
        """
'task.optimizer' is not set here
  where: command line: task.optimizer
  why:   the group 'optimizer' owns it
  fix:   optimizer=adamw
'task.scheduler' is not set here
  where: command line: task.scheduler
  why:   the group 'scheduler' owns it
  fix:   scheduler=cosine
'task.model' is not set here
  where: command line: task.model
  why:   the group 'model' owns it; model is one of gpt, mlp, ngrams, none, resnet, resnet18, scenes_resnet, \
tabular, tabular_regression, text_cnn, timm, unet, vit
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, num_classes: 2, optimizer: {lr: 0.3}}\noptimizer: "
        "{_target_: torch.optim.SGD, lr: 1}",
        """
'task.optimizer' is not set here
  where: command line: task.optimizer
  why:   the group 'optimizer' owns it
  fix:   optimizer.lr=0.3
""",
    ),
    (
        "task: {_target_: mlscale.tasks.Classification, num_classes: 2, optimizer: {lr: 0.3, xyz: "
        "1}}\noptimizer: {_target_: torch.optim.SGD, lr: 1}",
        """
'task.optimizer' is not set here
  where: command line: task.optimizer
  why:   the group 'optimizer' owns it
  fix:   optimizer.lr=0.3 optimizer.xyz=1
""",
    ),
]


@pytest.mark.parametrize(("config", "messages"), CASES, ids=[case[0] for case in CASES])
def test_messages_for_what_was_typed(config: str, messages: str) -> None:
    assert find_problems(config) == messages.strip("\n")
