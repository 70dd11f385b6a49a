"""Every fix of a configuration's error is typed: it composes, changes what is in force, and means what was typed."""

from __future__ import annotations

import difflib
import random
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf

import mlscale
from mlscale.errors import MLScaleError
from tests.fixes.grammar import PLACE, parse_fix

RECIPES = ("resnet", "tabular", "gpt", "regression", "vit")
# What a value may mean, in any key.
MEANINGS: Mapping[str, list[object]] = {
    "1k": [1000], "1M": [1_000_000], "50%": [0.5], "0,5": [0.5], "1,000": [1000], "10.0": [10], "1e3": [1000],
    "1h": [1, 60, 3600, "00:01:00:00"], "90s": [90, 1.5, 0.025, "00:00:01:30"], "2d": [48, 172800, 2880, "02:00:00:00"],
    "12:30:00": ["00:12:30:00"], "true": [True, "true"], "off": [False], "[2]": [2], "3": ["3", 3], "-1": ["-1"],
    "abc": [], "16-mixed": [], "[1,2]": [["1", "2"], [True, "2"]], "none": [None], "4GB": [4, 4000], "inf": ["inf"],
    "cuda:0": [], "0.1": ["0.1"], "null": [None], "1": [True, "1", 1], "a b": [], "max": [],
    "100ms": [100, 0.1, 0.00166666666667, 2.77777777778e-05],
}  # fmt: skip
HABITS = """
    --lr 0.2 | --gpus 2 | lr=1e-3 | --learning-rate 3e-4 | --epochs 5 | --batch-size 32 | -b 32 | --workers 3 |
    --weight-decay 0.02 | --momentum 0.8 | --opt adam | --optimizer.lr 0.01 | --trainer.max_epochs 3 | --precision 16 |
    --seed_everything 42 | --ckpt_path last.ckpt | --accelerator gpu | --devices 0,1 | --strategy ddp | --fast_dev_run |
    --gradient_clip_val 1.0 | --accumulate_grad_batches 4 | --per_device_train_batch_size 8 | --num_train_epochs 3 |
    --warmup_ratio 0.1 | --lr_scheduler_type cosine | --fp16 | --bf16 true | --save_steps 500 | --logging_steps 20 |
    --report_to wandb | --deepspeed ds.json | epochs=100 | imgsz=640 | batch=16 | batch=auto | device=0 | lr0=0.01 |
    patience=50 | optimizer=SGD | optimizer=Adam | amp=True | model=yolov8n.pt | data=coco.yaml | --sched cosine |
    --smoothing 0.1 | --mixup 0.2 | --model-ema | --clip-grad 1.0 | --wd 1e-4 | --arch resnet50 | --step-size 7 |
    trainer.gpus=2 | trainer.precision=16 | trainer.logger=false | trainer.strategy=ddp | model.optimizer.lr=0.01 |
    callbacks.early_stopping.patience=5 | logger.wandb.project=x | hydra.run.dir=out | ckpt_path=last | fp16=true |
    trainer.fast_dev_run=true | --num-classes 10 | --resume last.ckpt | save_top_k=3 | quantize=int8 | format=onnx |
    trainer.max_time=1h | 'model.widths[0]=16' | model.widths=16 | data.batch_size=1k | optimizer.betas=0.9 |
    hydra/launcher=joblib | ~optimizer.lr=0.5 | -cp conf | 'optimizer.lr=interval(0.1,1)' | --config-name x |
    +optimizer@second=adamw | hydra/sweeper=optuna | optimizer.lr=0.1,0.02 | --opt sgd --lr 0.2 --momentum 0.8
"""


def _leaves(node: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{front}{key}.")
        else:
            yield f"{front}{key}", value


def _compose(words: list[str]) -> dict[str, Any]:
    tree: Any = OmegaConf.to_container(mlscale.compose(words), resolve=False)
    return {key: value for key, value in _leaves(tree) if not key.startswith("derived")}


@cache
def _compose_recipe(recipe: str) -> dict[str, Any]:
    return _compose([f"+recipe={recipe}"])


def _find_faults(recipe: str, typed: list[str]) -> list[str]:
    """Return what is wrong with the fixes of a configuration's errors."""
    try:
        mlscale.compose([f"+recipe={recipe}", *typed])
    except MLScaleError as error:
        lines = [(line, item) for item in error.list_problems() for line in item.fix.split("\n") if line]
        return [f"{recipe} {typed}: {line}: {fault}" for line, _ in lines for fault in _type_fix(recipe, typed, line)]
    return []


def _type_fix(recipe: str, typed: list[str], line: str) -> Iterator[str]:
    fix, before = parse_fix(line)[0], _compose_recipe(recipe)
    if fix.kind == "leave":
        # What is left out is what was typed.
        if not any(re.sub(r"\W|_", "", fix.typed) in re.sub(r"\W|_", "", word) for word in typed):
            yield "was not typed"
        return
    if fix.kind != "overrides" or PLACE in fix.typed:
        yield f"can't be typed ({fix.kind})"
        return
    words = [word for word in fix.words if word != "-m"]
    if words == typed and "-m" not in fix.words:
        yield "was typed"
    try:
        after = _compose([f"+recipe={recipe}", *(re.sub(r"=[^\[{'\"(]*,", "=", word) for word in words)])
    except MLScaleError as error:
        yield f"is refused: {error}"
        return
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    if not changed:
        yield "changes nothing"
    for key in changed:
        old, new = before.get(key), after.get(key)
        if isinstance(old, list) and isinstance(new, list) and len(old) > 1 > len(new) - 1 and "[" not in str(typed):
            yield "makes a list of one"
    # Of one key with one value the value is known; what a name from elsewhere means is in the table's own tests.
    (key, _, text), (set_key, _, set_text) = typed[0].partition("="), words[0].partition("=")
    is_same = key.rpartition(".")[2].partition("[")[0] == set_key.rpartition(".")[2]
    if is_same and len(typed) == len(words) == 1 and text in MEANINGS and set_text != text:
        new = after.get(set_key)
        near = difflib.get_close_matches(text, [str(new)], cutoff=0.4)
        if not (near or new in MEANINGS[text] or (isinstance(new, list) and [text] == [str(item) for item in new])):
            yield f"does not mean {text}"


def _draw(seed: int, count: int) -> Iterator[tuple[str, list[str]]]:
    """Yield recipes and wrong words: wrong values, misspelt keys, keys elsewhere, names from other programs.

    Not `like` and `resume`: whether the run that they name is there is not known to a spelling.
    """
    draws = random.Random(seed)
    habits = [shlex.split(habit) for habit in " ".join(HABITS.split()).split("|")]
    for _ in range(count):
        recipe = draws.choice(RECIPES)
        keys = [key for key in _compose_recipe(recipe) if not key.endswith("_") and key not in ("like", "resume")]
        key = draws.choice(keys)
        head, dot, last = key.rpartition(".")
        cut = draws.randrange(len(last))
        misspelt = head + dot + draws.choice([last[:cut] + last[cut + 1 :], f"{last}s", last.upper(), f"{last}[0]"])
        typed = draws.choice([key, key, misspelt, last, f"{head}.{last}_x"])
        words = draws.choice(habits) if draws.random() < 0.3 else [f"{typed}={draws.choice(list(MEANINGS))}"]
        yield recipe, words


@pytest.mark.parametrize(
    ("recipe", "typed", "fix"),
    [
        ("resnet", "trainer.max_time=1h", "trainer.max_time=00:01:00:00"),
        ("resnet", "data.batch_size=1k", "data.batch_size=1000"),
        ("resnet", "model.widths[0]=16", ""),
        ("resnet", "format=onnx", ""),
        ("regression", "quantize=int8", "compress=int8"),
        ("resnet", "batch=auto", ""),
        ("resnet", "--lr 0.1", ""),  # which is in force
        ("vit", "model=resent", "model=resnet"),
        ("resnet", "optimizer.betas=[0.9,0.99]", ""),  # which another optimizer has
        ("resnet", "hydra/launcher=joblib", ""),
        ("resnet", "hydra/sweeper=optuna", ""),
        ("resnet", "~optimizer.lr=0.5", ""),
        ("resnet", "-cp conf", ""),
        ("resnet", "--config-name x", ""),
        ("resnet", "optimizer.lr=interval(0.1,1)", ""),
        ("resnet", "+optimizer@second=adamw", ""),
        ("resnet", "target=triton target.triton.to=s3://b/x", ""),  # no mail
        ("resnet", "target=triton target.triton.batch_size=3", ""),  # nor the batch of a training
        ("resnet", "target=triton target.triton.max_bach=3", "target.triton.max_batch=3"),
        ("resnet", "compress.required=true", "compress=int8 compress.int8.required=true"),
        ("resnet", "logger.project=x", "logger=[csv,wandb] logger.wandb.project=x"),
        ("resnet", "launch.max_restarts=-1", ""),  # 2 is another number
        ("resnet", "trainer=gpu", "trainer.accelerator=gpu"),
        ("resnet", "verbose=true", ""),
        ("vit", "weights=best.ckpt", ""),  # of samples, of a file, or of a package
        ("regression", "metric=val/r2_score", "metric=val/r2"),
        ("resnet", "data=imagefolder data.root=", ""),
        ("vit", "model.layers=-1", ""),
        ("resnet", "optimizer=[sgd,adamw]", "-m optimizer=sgd,adamw, which runs one job for each"),
        ("resnet", "metric=val/accurcy", "metric=val/accuracy"),
        ("resnet", "metric_for_best_model=f1", ""),  # which no task logs
        ("resnet", "eval_steps=50", ""),  # an interval within an epoch is another one
        ("resnet", "model.widths=[]", ""),
        ("resnet", "~optimizer.lrr", ""),  # what is taken out is not set
        ("resnet", "~optimizer.momentun", "~optimizer.momentum"),
        ("resnet", "~optimizer.momentum=3", "~optimizer.momentum"),
        # What was taken out is not put back.
        ("resnet", "~optimizer.lr", "scheduler.max_lr=<value>"),
        ("resnet", "~optimizer", "scheduler=none, or an option of optimizer"),
        ("resnet", "~seed", "leave ~seed out"),
        ("resnet", "optimizer.lr=choice(0.1,0.2)", "-m 'optimizer.lr=choice(0.1,0.2)', which runs one job for each"),
    ],
)
def test_a_fix_means_what_was_typed(recipe: str, typed: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        mlscale.compose([f"+recipe={recipe}", *typed.split()])
    assert caught.value.fix == fix
    assert bool(fix) or "see docs/" in caught.value.why
    assert "not supported" not in str(caught.value)


def test_drawn_fixes_are_typed() -> None:
    assert [fault for recipe, words in _draw(1, 8) for fault in _find_faults(recipe, words)] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_more_drawn_fixes_are_typed(seed: int) -> None:
    assert [fault for recipe, words in _draw(seed, 25) for fault in _find_faults(recipe, words)] == []


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(6, 21))
def test_many_drawn_fixes_are_typed(seed: int) -> None:
    assert [fault for recipe, words in _draw(seed, 50) for fault in _find_faults(recipe, words)] == []
