"""Names from elsewhere, and what is suggested for them: what a suggestion says composes, and passes the check."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache

import pytest

from mlscale.commands import COMMANDS
from mlscale.config.checks.check import check_config
from mlscale.config.checks.checked_config import collect_names
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup
from mlscale.config.names import not_yet
from mlscale.config.names.foreign_names import Alias, load_foreign_names
from mlscale.config.names.suggest import find_nearest, format_hydra_value, format_override, is_override
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.key_owners import PASSED_ON
from mlscale.config.schema.roots import COMMAND_BASES, find_roots
from mlscale.config.suggestions.alias_meanings import find_group_option, render_alias
from mlscale.config.suggestions.config_names import Names
from mlscale.config.suggestions.templates import get_option_types
from mlscale.config.suggestions.unknown_keys import suggest_key
from mlscale.errors import MLScaleError

# Keys of classes that are typed as _target_: schedules of torch's, augmentations of torchvision's.
OF_TYPED_CLASSES = {
    *(f"scheduler.{name}" for name in ("gamma", "step_size", "milestones", "T_mult", "T_0", "interval")),
    *("augment.p", "augment.value", "augment.sigma"),
}
SAMPLES = (2, "some", "torch.nn.Identity", 0.5, True, ["a"], [1], {"a": 1}, None)


@cache
def names(*overrides: str) -> Names:
    request = parse_command_line("train", overrides)
    return collect_names(compose_config(request), groups=request.roots.groups)


def alias(name: str) -> Alias:
    found = load_foreign_names().find_alias(name)
    assert found is not None
    return found


def answers() -> dict[str, str]:
    """Every suggestion that the table gives in the shipped config, and a name and value that it is given for."""
    found: dict[str, str] = {}
    for name, entry in load_foreign_names().keys.items():
        for value in [*entry.values, *SAMPLES]:
            advice = render_alias(entry, name, value, names())
            if advice is not None:
                found.setdefault(advice.fix, f"{name}={value}")
                if value in SAMPLES and advice.exact:
                    break  # one value that fits
    for group, entry in load_foreign_names().options.items():
        for value in [*entry.values, *SAMPLES]:
            if fix := find_group_option(group, value, names()):
                found.setdefault(fix, f"{group}={value}")
    return {fix: typed for fix, typed in found.items() if is_override(fix)}


def packed(fixes: list[str]) -> Iterator[list[str]]:
    """Suggestions that say nothing about the same key or group, together: to compose each alone takes minutes."""
    packs: list[tuple[set[str], set[str], list[str]]] = []
    for fix in fixes:
        keys = {word.split("=")[0].lstrip("~") for word in shlex.split(fix)}
        groups = {key.split(".")[0] for key in keys if key in find_roots().groups or key.endswith("_target_")}
        groups |= {word[1:].split(".")[0] for word in shlex.split(fix) if word.startswith("~")}
        heads = {key.split(".")[0] for key in keys}
        for taken_keys, taken_groups, members in packs:
            taken_heads = {key.split(".")[0] for key in taken_keys}
            if not keys & taken_keys and not groups & taken_heads and not heads & taken_groups:
                taken_keys |= keys
                taken_groups |= groups
                members.append(fix)
                break
        else:
            packs.append((keys, groups, [fix]))
    for _, _, members in packs:
        yield members


def problems(words: list[str]) -> list[str]:
    request = parse_command_line("train", words)
    origin = create_origin_lookup("train", request.overrides, request.roots)
    return [
        str(problem) for problem in check_config(compose_config(request), groups=request.roots.groups, origin=origin)
    ]


@pytest.mark.slow
def test_every_suggestion_of_the_table_composes_and_passes_the_check() -> None:
    typed = answers()
    wrong: list[str] = []
    assert len(typed) > 180
    for members in packed([*typed]):
        if found := problems([word for fix in members for word in shlex.split(fix)]):
            wrong += [f"{[(typed[fix], fix) for fix in members]}: {found}"]
    assert wrong == []


def test_every_template_can_be_suggested_in_some_config() -> None:
    known = set(names().paths)
    for option in get_shipped_fields().options:
        known |= set(get_option_types(option.group, option.name))
    known |= {f"model.{name}" for name in PASSED_ON["timm.create_model"]}
    for entry in [*load_foreign_names().keys.values(), *load_foreign_names().options.values()]:
        for template in entry.to:
            built = tuple(front for front in ("scheduler.scheduler.", "augment.") if f"{front}_target_=" in template)
            for word in template.split(" "):
                key = word.partition("=")[0]
                if built and key.startswith((*built, "scheduler.interval", "scheduler.monitor")):
                    continue  # of a class that the template names
                if key in OF_TYPED_CLASSES:
                    continue
                assert key in known or key in find_roots().groups or key.endswith("_target_"), template
        assert entry.to or entry.values or entry.group or entry.unsupported


def test_the_table_is_long_and_says_each_name_once() -> None:
    assert len(load_foreign_names().keys) >= 1000
    assert not set(load_foreign_names().commands) & set(COMMANDS)
    for command in load_foreign_names().commands.values():
        assert command.split()[0] in COMMANDS


def test_a_name_that_is_a_key_here_means_that_key() -> None:
    """`patience` is no foreign name for anything but the key of this name, unless the table says so."""
    leaves = {
        path.rpartition(".")[2] for path in names().paths if "." in path and get_shipped_fields().find_field(path)
    }
    for name, entry in load_foreign_names().keys.items():
        if name in leaves and not entry.first and not entry.unsupported and not entry.group:
            keys = [word.partition("=")[0].rpartition(".")[2] for fix in entry.to for word in fix.split(" ")]
            assert name in keys, name


def test_what_exists_is_not_said_to_be_missing() -> None:
    groups = find_roots().groups
    existing = {
        *COMMANDS,
        *COMMAND_BASES,
        *groups,
        *(f"{group}={option}" for group in groups for option in groups[group]),
    }
    existing |= {option for options in groups.values() for option in options if option != "none"}
    existing |= {
        part for option in get_shipped_fields().options for field in option.fields for part in field.path.split(".")
    }
    existing |= {part for path in names().paths for part in path.split(".")}
    assert {not_yet_name(name) for name in existing} & set(not_yet.load_features()) == set()


def not_yet_name(name: str) -> str:
    return "=".join(re.sub(r"[_\-. ]", "", part.lower()) for part in name.split("="))


def test_what_does_it_meanwhile_composes() -> None:
    for feature in set(not_yet.load_features().values()):
        if is_override(feature.instead):
            assert problems(shlex.split(feature.instead)) == [], feature


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
        ("report_to", "wandb", "logger=wandb"),
        ("distributed_backend", "nccl", "strategy=ddp trainer.devices=2"),
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
        ("max_duration", "10ep", "trainer.max_epochs=10"),
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
        ("accelerator", "ddp", "strategy=ddp trainer.devices=2"),
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


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["--opt-betas", "0.9", "0.95"], "optimizer=adamw optimizer.betas=[0.9,0.95]"),
        (["--input-size", "3", "224", "224"], "data.image_size=224"),
        (["--output", "out"], "runs_dir=out"),
        (["hydra/sweeper=optuna"], "-m optimizer.lr=0.1,0.01"),
    ],
)
def test_words_of_other_command_lines(words: list[str], fix: str) -> None:
    with pytest.raises(MLScaleError) as error:
        parse_command_line("train", words)
    assert error.value.fix == fix


@pytest.mark.parametrize(
    ("words", "fix", "why"),
    [
        (["recipe=gpt", "--label-smoothing", "1"], "leave label_smoothing out", "task=language has no label smoothing"),
        (["recipe=tabular", "--img-size", "32"], "leave img_size out", "data=breast_cancer has no image size"),
        (["recipe=gpt", "--n-heads", "8"], "model.heads=8", ""),
        (["recipe=gpt", "--max-seq-length", "64"], "data.length=64", ""),
        (["trainer.max_epochs=30", "--warmup-epochs", "3"], "scheduler=warmup_cosine scheduler.warmup=0.1", "epochs"),
        (["model=gone", "--lr", "0.1"], "optimizer.lr=0.1", ""),
        (["--label-smoothing", "0.1"], "task.label_smoothing=0.1", ""),
        (["lr=0.1,0.01"], "-m optimizer.lr=0.1,0.01 to run one job for each", ""),
        (["device=0,1"], "trainer.devices=2 trainer.accelerator=gpu", ""),
    ],
)  # fmt: skip
def test_flags_are_answered_from_the_recipe_that_is_chosen(words: list[str], fix: str, why: str) -> None:
    with pytest.raises(MLScaleError) as error:
        parse_command_line("train", words)
    assert error.value.fix == fix
    assert why in error.value.why


@pytest.mark.parametrize(
    ("recipe", "typed", "value", "why"),
    [
        ("gpt", "label_smoothing", 0.1, "task=language has no label smoothing"),
        ("gpt", "task.label_smoothing", 0.1, "task=language has no label smoothing"),
        ("tabular", "img_size", 32, "data=breast_cancer has no image size"),
        ("gpt", "class_weights", "balanced", "task=language has no class weights"),
    ],
)
def test_what_the_chosen_task_or_data_does_not_have(recipe: str, typed: str, value: object, why: str) -> None:
    advice = suggest_key(typed, value, names(f"recipe={recipe}"))
    assert advice is not None
    assert (advice.fix, advice.why) == (f"leave {typed} out", why)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("move_metrics_to_cpu", "metrics"), ("torch_empty_cache_steps", "memory"), ("save_on_each_node", "checkpoints"),
        ("process_position", "progress bar"), ("extras.ignore_warnings", "warnings"), ("enforce_tags", "tags"),
        ("logging_nan_inf_filter", "finite"), ("log_file", "log"), ("skip_memory_metrics", "memory"),
        ("split_batches", "batch"), ("automatic_optimization", "LightningModule"),
    ],
)  # fmt: skip
def test_a_reason_is_about_the_setting_that_it_is_given_for(name: str, reason: str) -> None:
    advice = suggest_key(name, True, names())
    assert advice is not None
    assert advice.why.startswith("not supported: ")
    assert reason in advice.why


def test_the_keys_that_a_reason_names_exist() -> None:
    known = set(names().paths)
    for option in get_shipped_fields().options:
        known |= {*get_option_types(option.group, option.name), option.package}
    for entry in load_foreign_names().keys.values():
        for text in (entry.unsupported, entry.why, *entry.reasons.values()):
            for key in re.findall(r"(?<![\w/.{])([a-z]+\.[a-z_.]+[a-z])(?![\w(/])", text):
                is_key = key.partition(".")[0] in {path.partition(".")[0] for path in known}
                key = key.replace("scheduler.scheduler.", "scheduler.")
                is_key = is_key and key not in OF_TYPED_CLASSES
                assert not is_key or "_target_" in key or key in known or any(k.startswith(f"{key}.") for k in known), (
                    text
                )


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


def test_nearest() -> None:
    assert find_nearest("devcies", ["devices", "device_stats"]) == "devices"
    assert find_nearest("Batch-Size", ["batch_size"]) == "batch_size"
    assert find_nearest("qqq", ["devices"]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (1, "1"), (0.1, "0.1"), ("x/y-z.txt", "x/y-z.txt"), ("5", "'5'"),
        ("true", "'true'"), ("a b", "a b"), ("a,b", "'a,b'"), ([1, "a"], "[1,a]"), ({"a": 1}, "{a:1}"),
        ("it's", "'it\\'s'"),
    ],
)  # fmt: skip
def test_values_are_shown_in_hydras_grammar(value: object, text: str) -> None:
    assert format_hydra_value(value) == text


@pytest.mark.parametrize(
    "value", ["plain", "a b", "5", "true", "a,b", "x&y", "{1..3}.tar", "it's", "a?b=c", "$HOME", ""]
)
def test_an_override_survives_the_shell_and_hydra(value: str) -> None:
    command = ["sh", "-c", f"printf %s {format_override('name', value)}"]
    word = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert compose_config(parse_command_line("train", [word])).name == value
