"""A key from elsewhere is translated with its value."""

from __future__ import annotations

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.names.foreign_names import Alias, load_foreign_names
from mlscale.config.suggestions.alias_meanings import find_group_option, render_alias
from mlscale.config.suggestions.unknown_keys import suggest_key
from tests.unit.config.names.composed_names import names, problems


def alias(name: str) -> Alias:
    found = load_foreign_names().find_alias(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("typed", "value", "fix"),
    [
        ("gpus", 8, "trainer.devices=8 trainer.accelerator=gpu"),
        ("gpus", 0, "trainer.accelerator=cpu"),
        ("n_epochs", 3, "trainer.max_epochs=3"),
        ("trainer.epochs", 3, "trainer.max_epochs=3"),
        ("amp", False, "precision=fp32"),
        ("mixed_precision", "no", "precision=fp32"),
        ("precision", 16, "precision=fp16"),
        ("optimizer.name", "AdamW", "optimizer=adamw"),
        ("optimizer_name", "rmsprop", "optimizer._target_=torch.optim.RMSprop"),
        ("optimizer_name", "my_pkg.Lion", "optimizer._target_=my_pkg.Lion"),
        ("arch", "efficientnet_b0", "model=timm model.model_name=efficientnet_b0"),
        ("net", "my_pkg.Net", "model._target_=my_pkg.Net"),
        ("hidden_sizes", [64, 32], "model=mlp model.hidden=[64,32]"),
        ("optimizer.betas", [0.9, 0.95], "optimizer=adamw optimizer.betas=[0.9,0.95]"),
        ("eps", 1e-7, "optimizer=adamw optimizer.eps=1e-07"),
        ("experiment", "resnet", "recipe=resnet"),
        ("experiment", "study-7", "name=study-7"),
        ("dataset", "fashion-mnist", "data=fashion_mnist"),
        ("load_from_disk", "birds", "data=image_table data.train=birds"),
        ("report_to", "wandb", "logger=wandb"),
        ("distributed_backend", "nccl", "strategy=ddp"),
        ("greater_is_better", False, "mode=min"),
        (
            "warmup_epochs",
            500,
            "a warm-up is a part of the run, below 1: scheduler.warmup, of OneCycle scheduler.pct_start",
        ),
        ("trainer.weights_summary", "full", "trainer.enable_model_summary=true"),
        ("weights_summary", "top", "trainer.enable_model_summary=true"),
        ("weights_summary", None, "trainer.enable_model_summary=false"),
        ("progress_bar_refresh_rate", 20, "callbacks.progress.refresh=0.5"),
        ("progress_bar_refresh_rate", 0, "~callbacks.progress"),
        ("logger.mlflow.run_name", "exp1", "logger=mlflow logger.mlflow.name=exp1"),
        ("logger.wandb.run_name", "exp1", "logger=wandb logger.wandb.name=exp1"),
        ("save_strategy", "no", "~callbacks.checkpoint"),
        ("save_strategy", False, "~callbacks.checkpoint"),
        ("resume_from_checkpoint", "last", "resume=last"),
        ("resume_from_checkpoint", "01jd9x7k2m4p", "resume=01jd9x7k2m4p"),
        ("resume_from_checkpoint", "runs/a/checkpoints/last.ckpt", "init_from=runs/a/checkpoints/last.ckpt"),
        ("ckpt_path", "mobilenetlarge", "init_from=mobilenetlarge"),
        ("log_images", True, "callbacks=[default,samples]"),
        ("min_lr", 1e-6, "scheduler.final_div_factor=4000.0"),
        ("val_split", 0.2, "leave val_split out"),
        ("verbose", 0, "~callbacks.progress"),
        ("callback", "early_stopping", "callbacks=[default,early_stopping]"),
        ("bs", 64, "data.batch_size=64"),
        ("ema", True, "callbacks=[default,ema]"),
        ("ema_decay", 0.9999, "callbacks=[default,ema] callbacks.ema.decay=0.9999"),
        ("warmup_steps", 500, "scheduler=warmup_cosine scheduler.warmup=500"),
        ("warmup_ratio", 0.1, "scheduler.pct_start=0.1"),
        ("clipvalue", 0.5, "trainer.gradient_clip_val=0.5 trainer.gradient_clip_algorithm=value"),
        ("torch_compile", True, "compile=true"),
        ("float32_matmul_precision", "high", "tf32=true"),
        ("track_grad_norm", 2, "callbacks=[default,grad_norm]"),
        ("learning_rate", 0.1, "optimizer.lr=0.1"),
        ("task.smoothing", 0.1, "task.label_smoothing=0.1"),
        ("b", 64, "data.batch_size=64"),
        ("batch", -1, "data.batch_size=64"),
        ("batch", 1, "data.batch_size=1"),
        ("hflip", 0.0, "leave hflip out"),
        ("eval_batch_size", 64, "leave eval_batch_size out"),
        ("scale", 0.5, "augment.scale=0.5"),
        ("scale", [0.08, 1.0], "augment=crop augment.area=[0.08,1.0]"),
        ("pretrained", "w.pt", "init_from=w.pt"),
        ("project", "runs/p", "runs_dir=runs/p"),
        ("accelerator", "ddp", "strategy=ddp"),
        ("verbose", True, "leave verbose out"),
        ("dr", 0.1, "leave dr out"),
        ("model_dtype", "bfloat16", "precision=bf16_true"),
        ("metric_for_best_model", "eval_accuracy", "metric=val/accuracy"),
        (
            "metric_for_best_model",
            "f1",
            "leave metric_for_best_model out",
        ),
        ("model.net.input_size", 784, "leave model.net.input_size out"),
        ("lr_scheduler_kwargs.num_cycles", 2, "leave lr_scheduler_kwargs out"),
        (
            "lr_scheduler_type",
            "polynomial",
            "scheduler._target_=torch.optim.lr_scheduler.PolynomialLR "
            "scheduler._partial_=true 'scheduler.total_iters=${derived.total_steps}'",
        ),
    ],
)
def test_values_translate(typed: str, value: object, fix: str) -> None:
    advice = suggest_key(typed, value, names("recipe=resnet"))
    assert advice is not None
    assert advice.fix == fix


def test_the_first_key_that_the_config_has() -> None:
    for overrides, fix in [
        ((), "data=imagefolder data.root=/d"),
        (("data=webdataset",), "data.train=/d"),
        (("data=none",), "data=imagefolder data.root=/d"),
    ]:
        advice = render_alias(alias("data_dir"), "data_dir", "/d", names(*overrides))
        assert advice is not None
        assert advice.fix == fix


@pytest.mark.parametrize("value", ["yolov8n.pt", "/data/model", "model.yaml"])
def test_a_file_is_no_class(value: str) -> None:
    assert "_target_" not in find_group_option("model", value, names())


def test_a_single_letter_is_near_to_nothing() -> None:
    assert suggest_key("q", 3, names()) is None


def test_keys_of_an_entry_by_their_names_elsewhere() -> None:
    (problem,) = problems(["callbacks.model_checkpoint.every_n_train_steps=100"])
    assert "callbacks.checkpoint.every_n_steps=100" in problem


@pytest.mark.parametrize(
    ("typed", "fix"),
    [
        ("resume=true", "resume=auto"),
        ("mode=val", "mlscale evaluate last"),
        ("mode=minimise", "mode=min"),
        ("mode=Maximize", "mode=max"),
        ("mode=mni", "mode=min"),
        ("mode=wide", "mode=<max or min>"),
    ],
)
def test_the_value_of_a_choice_is_never_the_opposite(typed: str, fix: str) -> None:
    (problem,) = check_config(compose_config(parse_command_line("train", [typed])), groups={})
    assert problem.fix == (f"'{fix}'" if "<" in fix else fix)
