"""Values of well-known keys that belong to another key or another program: what is suggested passes the check."""

from __future__ import annotations

import shlex
from functools import cache

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup
from mlscale.config.names.foreign_names import count_devices
from mlscale.errors import MLScaleError

OTHER, SHARDS, DOUBLE = "other launchers' processes", "other launchers' sharding", "float64"
ESTIMATE = "mlscale estimate data.batch_size=64"
GPUS = "CUDA_VISIBLE_DEVICES picks them"


def problem(typed: str) -> MLScaleError | None:
    """The first problem of the words, or None where they are accepted."""
    try:
        request = parse_command_line("train", shlex.split(typed))
        origin = create_origin_lookup(request.command, list(request.overrides), request.roots)
        found = check_config(compose_config(request), groups=request.roots.groups, origin=origin)
    except MLScaleError as error:
        return error
    return found[0] if found else None


@cache
def passes(fix: str) -> bool:
    return fix.startswith(("leave ", "mlscale ")) or problem(fix) is None


@pytest.mark.parametrize(
    ("typed", "fix", "why"),
    [
        # names of strategies as accelerators: Lightning up to 1.5
        ("trainer.accelerator=ddp", "strategy=ddp", "is strategy"),
        ("trainer.accelerator=dp", "strategy=ddp", "is strategy"),
        ("trainer.accelerator=ddp_spawn", "strategy=ddp", "is strategy"),
        ("trainer.accelerator=ddp2", "strategy=ddp", "is strategy"),
        ("trainer.accelerator=ddp_cpu", "strategy=ddp trainer.accelerator=cpu", "is strategy"),
        ("trainer.accelerator=tpu", "leave trainer.accelerator out", "mps"),
        ("accelerator=ddp_spawn", "strategy=ddp", "is strategy"),
        # plugins of several kinds
        ("--plugins ddp_sharded", "strategy=fsdp", ""),
        ("trainer.plugins=[ddp_sharded]", "strategy=fsdp", ""),
        ("trainer.plugins=native_amp", "precision=fp16", "takes objects"),
        ("plugins=[apex_amp]", "precision=fp16", "takes objects"),
        (
            "plugins=ddp_find_unused_parameters_true",
            "strategy=ddp strategy.find_unused_parameters=true",
            "objects",
        ),
        # dictionaries
        ("accumulate_grad_batches={5:2}", "trainer.accumulate_grad_batches=2", "schedule by epoch"),
        ("trainer.accumulate_grad_batches={0:8,4:4}", "trainer.accumulate_grad_batches=2", "schedule by epoch"),
        ("--accumulate_grad_batches '{5: 2}'", "trainer.accumulate_grad_batches=2", "schedule by epoch"),
        ("max_time={hours:1}", "'trainer.max_time={hours:1}'", ""),
        ("early_stopping={patience:3}", "callbacks=[default,early_stopping] callbacks.early_stopping.patience=3", ""),
        # automatic sizes
        ("data.batch_size=-1", "data.batch_size=64", ESTIMATE),
        ("data.batch_size=auto", "data.batch_size=64", ESTIMATE),
        ("data.batch_size=0.7", "data.batch_size=64", ESTIMATE),
        ("batch=-1", "data.batch_size=64", ESTIMATE),
        ("batch=0.7", "data.batch_size=64", ESTIMATE),
        ("--batch-size auto", "data.batch_size=64", ESTIMATE),
        ("data.batch_size=0", "data.batch_size=64", ""),
        ("data.workers=-1", "data.workers=auto", ""),
        ("num_workers=-1", "data.workers=auto", ""),
        # strategies and precisions
        ("strategy=ddp_sharded_spawn", "strategy=fsdp", ""),
        ("strategy=ddp_cpu", "strategy=ddp trainer.accelerator=cpu", ""),
        ("strategy=tpu_spawn", "strategy=auto", ""),
        ("strategy=dp", "strategy=ddp", ""),
        ("precision=16", "precision=fp16", ""),
        ("precision=\"'16'\"", "precision=fp16", ""),
        ("precision=bf16-mixed", "precision=bf16", ""),
        ("precision=amp", "precision=bf16", ""),
        ("precision=apex", "precision=fp16", ""),
        # devices: their number, not their indices
        ("gpus=[0]", "trainer.devices=1 trainer.accelerator=gpu", GPUS),
        ("gpus='0,1'", "trainer.devices=2 trainer.accelerator=gpu", ""),
        ("--gpus 1,3", "trainer.devices=2 trainer.accelerator=gpu", GPUS),
        ("--gpus -1", "trainer.devices=-1 trainer.accelerator=gpu", ""),
        ("gpus=auto", "trainer.devices=auto trainer.accelerator=gpu", ""),
        ("trainer.devices=[0,1]", "trainer.devices=2", GPUS),
        ("trainer.devices=0,1", "trainer.devices=2", ""),
        ("trainer.devices=\"'-1'\"", "trainer.devices=-1", ""),
        ("trainer=ddp trainer.devices=3", "strategy=ddp", ""),
        ("trainer=ddp", "strategy=ddp trainer.devices=4", ""),
        ("trainer=ddp_sim", "strategy=ddp trainer.devices=2 trainer.accelerator=cpu", ""),
        ("trainer.devices=0", "trainer.devices=1 trainer.accelerator=cpu", ""),
        ("device=2", "trainer.accelerator=gpu", GPUS),
        ("device=0,1,2", "trainer.devices=3 trainer.accelerator=gpu", ""),
        ("device=[-1,-1]", "trainer.devices=2 trainer.accelerator=gpu", GPUS),
        # an int counts batches, a float is a part of them
        ("trainer.limit_val_batches=-1", "trainer.limit_val_batches=1.0", "an int counts"),
        ("limit_val_batches=2.0", "trainer.limit_val_batches=2", "an int counts"),
        ("train_percent_check=1", "trainer.limit_train_batches=1.0", "an int counts"),
        ("fraction=0.5", "trainer.limit_train_batches=0.5", ""),
        ("trainer.val_check_interval=0", "trainer.limit_val_batches=0", ""),
        ("val_check_interval=0.25", "trainer.val_check_interval=0.25", ""),
        ("eval_steps=500", "trainer.val_check_interval=500 trainer.check_val_every_n_epoch=null", "across epochs"),
        ("eval_steps=0.2", "trainer.check_val_every_n_epoch=2", "so many epochs"),
        ("check_val_every_n_epoch=0", "trainer.limit_val_batches=0", ""),
        ("save_steps=0", "leave save_steps out", ""),
        # a second key without which the first has no effect, or another one
        ("max_steps=5000", "trainer.max_epochs=-1 trainer.max_steps=5000", "whichever comes first"),
        ("trainer.max_epochs=3 max_steps=5000", "trainer.max_steps=5000", ""),
        ("accumulate_grad_batches=4", "data.batch_size=256 trainer.accumulate_grad_batches=4", "divides"),
        ("barebones=true", "callbacks=none logger=none", ""),
        ("trainer.barebones=true", "callbacks=none logger=none", "barebones"),
        ("trainer.limit_train_batches=0", "mlscale evaluate last", "trains on nothing"),
        ("limit_train_batches=0", "mlscale evaluate last", "trains on nothing"),
        ("save_period=10", "callbacks.checkpoint.every_n_epochs=10", "in epochs"),
        ("save_period=-1", "leave save_period out", ""),
        ("save_strategy=steps", "callbacks.checkpoint.every_n_steps=500", "500"),
        ("val=false", "trainer.limit_val_batches=0", ""),
        ("train=false", "mlscale evaluate last", ""),
        ("data_dir=/d", "data=imagefolder data.root=/d", ""),
        ("data.data_dir=/d", "data.root=/d", ""),
        ("sched=tanh", "leave sched out", "torch.optim.lr_scheduler"),
        ("metric_for_best_model=metrics/mAP50", "leave metric_for_best_model out", "val/accuracy"),
        # truth values of any case, which Hydra reads as such
        ("logger=False", "logger=none", ""),
        ("logger=True", "logger=csv", ""),
        ("augment=False", "augment=none", ""),
        # files where an option is chosen
        ("model=best.pt", "init_from=best.pt", ""),
        ("data=/my/images", "data=imagefolder data.root=/my/images", ""),
        ("output=./out", "runs_dir=./out", "folder"),
        # of one device elsewhere, of all of them here
        ("batch_size=32 trainer.devices=2", "data.batch_size=64", "global"),
        ("batch=32 trainer.devices=2", "data.batch_size=32", "global"),
        ("val_check_interval=20", "trainer.val_check_interval=20 trainer.check_val_every_n_epoch=null", "across"),
        ("--resume", "resume=auto", "a run of mlscale"),
        ("resume_from_checkpoint=/x/last.ckpt", "init_from=/x/last.ckpt", "from the weights"),
        # metrics of other programs
        ("metric=val/acc", "metric=val/accuracy", "logs val/loss"),
        ("metric=val_loss", "metric=val/loss", ""),
        ("callbacks.model_checkpoint.monitor=val/acc", "callbacks.checkpoint.monitor=val/accuracy", ""),
        ("callbacks.checkpoint.monitor=eval_accuracy", "callbacks.checkpoint.monitor=val/accuracy", ""),
        ("mode=min metric=top1", "metric=val/accuracy mode=max", ""),
        # names that are near to another one, or to an option of another group
        ("opt=adamp", "optimizer._target_=timm.optim.AdamP", "takes the place"),
        ("optimizer=lion", "optimizer._target_=timm.optim.Lion", "options: "),
        ("opt=fusedadamw", "optimizer=adamw optimizer.fused=true", ""),
        ("optimizer=auto", "optimizer=adamw", "options: "),
        ("report_to=[wandb,tensorboard]", "logger=[wandb,tensorboard]", ""),
        ("run_name=yolo", "name=yolo", ""),
    ],
)
def test_a_value_from_elsewhere_gets_a_fix_that_passes(typed: str, fix: str, why: str) -> None:
    found = problem(typed)
    assert found is not None
    assert found.fix == fix
    assert why in (found.why or "")
    assert passes(fix)


@pytest.mark.parametrize(
    "typed",
    [
        "trainer.accelerator=cuda", "trainer.devices=auto", "trainer.devices=-1", "trainer.devices=\"'2'\"",
        "trainer.limit_val_batches=0", "trainer.limit_train_batches=1.0", "trainer.val_check_interval=00:01:00:00",
        "trainer.val_check_interval={hours:1}", "trainer.plugins=[]", "data.workers=0", "data.batch_size=1",
    ],
)  # fmt: skip
def test_values_in_range_are_accepted(typed: str) -> None:
    assert problem(typed) is None


@pytest.mark.parametrize(
    ("typed", "count"),
    [([0, 1], 2), ("0,1", 2), ("[1, 3]", 2), ("0,", 1), ([-1], -1), ([-1, -1], 2), (2, 2), ("auto", "auto"), ([], [])],
)
def test_indices_of_devices_are_counted(typed: object, count: object) -> None:
    assert count_devices(typed) == count
