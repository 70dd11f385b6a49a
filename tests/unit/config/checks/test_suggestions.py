"""What is suggested for a key that does not exist: the right key, or nothing."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from mlscale.config.checks.suggestions import Names, get_option_types, suggest_key
from mlscale.config.names.suggest import compute_distance, fold_name
from mlscale.config.schema.documented_fields import Option, get_shipped_fields
from tests.unit.config.checks.composed_names import names

VALUES = ("some", 1, 0.5, True, ["a"], {"a": 1})
LETTERS = "abcdefghijklmnopqrstuvwxyz"
USUAL = ("checkpoint", "progress", "metrics", "nonfinite", "stall")


def chosen(option: Option) -> tuple[str, ...]:
    if option.group != "callbacks":
        return (f"{option.group}={option.name}",)
    return () if option.name in USUAL else (f"callbacks=[default,{option.name}]",)


def keys() -> Iterator[tuple[str, object, tuple[str, ...]]]:
    """Every key of every group and option: its path, a value that it takes, and what chooses the option."""
    for option in get_shipped_fields().options:
        if option.target and option.group != "command":
            for path in dict.fromkeys(field.path for field in option.fields):
                types = get_option_types(option.group, option.name)[path]
                default = next(field.default for field in option.fields if field.path == path)
                fitting = [v for v in (default, *VALUES) if v != "???" and all(kind.accepts(v) for kind in types)]
                yield path, fitting[0] if fitting else None, chosen(option)
    for path, field in get_shipped_fields().top.items():
        if not path.startswith("derived."):
            yield path, field.default if field.default is not None else 1, ()


def misspelt(path: str, random_: random.Random) -> str:
    """One or two edits, letters in the wrong order, a doubled one, other case, or other separators."""
    head, _, last = path.rpartition(".")
    kind = random_.choice(("case", "separator", "other", "left out", "more", "swap", "doubled", "two"))
    if kind == "case":
        words = "".join(word.capitalize() for word in last.split("_"))
        return f"{head}.{words}" if head else words
    if kind == "separator" and "_" in last:
        return path.replace("_", random_.choice(("-", "")))
    letters = list(path)
    for _ in range(2 if kind == "two" else 1):
        edit = random_.choice(("other", "left out", "more", "swap")) if kind in ("two", "separator") else kind
        i = random_.choice([i for i, letter in enumerate(letters) if letter != "."])
        if edit == "other":
            letters[i] = random_.choice(LETTERS)
        elif edit == "left out":
            del letters[i]
        elif edit == "swap" and i + 1 < len(letters):
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
        else:
            letters.insert(i, letters[i] if edit == "doubled" else random_.choice(LETTERS))
    return "".join(letters)


def fix_of(typed: str, value: object, known: Names) -> str:
    """What is suggested: overrides, or the reason that names a key of another option."""
    advice = suggest_key(typed, value, known)
    return (advice.fix or advice.why) if advice else ""


def test_typos_are_answered_with_the_key_that_was_meant() -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    random_ = random.Random(seed)
    every = list(keys())
    right, wrong, count = 0, [], 0
    contexts = random_.sample(sorted({overrides for *_, overrides in every}), 5)  # to compose all takes a minute
    while count < 150:
        path, value, overrides = random_.choice(every)
        known = names(*overrides) if overrides in contexts else names()
        typed = misspelt(path, random_)
        exists = typed in known.paths or any(item.startswith(f"{typed}.") for item in known.paths)
        if exists or ".." in typed or typed.startswith(".") or typed.endswith("."):
            continue
        count += 1
        fix = fix_of(typed, value, known)
        right += path in fix
        if fix and path not in fix:
            wrong.append((typed, path, fix))
    assert right >= 0.95 * count, (seed, right)  # 99 % of thousands; the rest is the luck of 150
    assert len(wrong) <= 0.04 * count, (seed, wrong)


@pytest.mark.parametrize(
    ("typed", "value", "fix"),
    [
        ("pct_start", 0.2, "scheduler.pct_start is a key of scheduler=one_cycle"),
        ("scheduler.pct_star", 0.2, "scheduler.pct_start is a key of scheduler=one_cycle"),
        ("metric_mode", "min", "mode=min"),
        ("metric_mode", "minimize", "mode=min"),
        ("MaxEpochs", 3, "trainer.max_epochs=3"),
        ("trainer_max_epochs", 3, "trainer.max_epochs=3"),
        ("number_of_epochs", 3, "trainer.max_epochs=3"),
        ("SOLVER.BASE_LR", 0.1, "optimizer.lr=0.1"),
        ("checkpoint.keep", 3, "callbacks.checkpoint.keep=3"),
        ("cllbacks.checkpoint.keep", 3, "callbacks.checkpoint.keep=3"),
        ("stratgy.timeout", 3, "strategy.timeout=3"),
        ("dtaa.batch_szie", 3, "data.batch_size=3"),
        ("strategy.name", "ddp", "strategy=ddp"),
        ("save_dir", "out", "logger.csv.save_dir=out\nruns_dir=out"),
        ("trainer.max_epoch", "ten", "trainer.max_epochs takes int ≥ -1 or null"),
        ("trainer.max_epoch", "10", "trainer.max_epochs=10"),
        ("data.Val", None, "data.val is a key of data=dali, data=image_table, data=table, …"),
        ("dtaa.label", "label", "data.label is a key of data=text_table"),
        ("tksa.label_smoothing", 0.1, "task.label_smoothing=0.1"),
    ],
)
def test_the_key_that_was_meant(typed: str, value: object, fix: str) -> None:
    advice = suggest_key(typed, value, names())
    assert advice is not None
    assert (advice.fix or advice.why) == fix


@pytest.mark.parametrize("typed", ["doctor", "node_type", "alpha", "rho", "temperature", "thing.other", "x", "model.q"])
def test_nothing_is_suggested_where_nothing_is_near(typed: str) -> None:
    assert suggest_key(typed, "some", names()) is None


@pytest.mark.parametrize(
    "typed",
    ["lrf", "lrd", "initial_epoch", "bn_momentum", "batch_size_val", "val_batch", "weight_decay_end", "ema_momentum"],
)
def test_a_name_with_another_word_is_no_typo(typed: str) -> None:
    """They are settings of Ultralytics, Keras, timm, MAE and DINO, other ones than the keys that look like them."""
    advice = suggest_key(typed, 1, names())
    assert advice is None or not advice.fix


def test_a_key_that_exists_is_looked_for_first() -> None:
    one_cycle, ema = names("scheduler=one_cycle"), names("callbacks=[default,ema]")
    for typed, value, known, fix in [
        ("max_lr", 0.1, one_cycle, "scheduler.max_lr=0.1"),
        ("decay", 0.9, ema, "callbacks.ema.decay=0.9\noptimizer.weight_decay=0.9"),
        ("ema.decay", 0.9, ema, "callbacks.ema.decay=0.9"),
        ("decay", 0.9, names(), "optimizer.weight_decay=0.9"),
    ]:
        advice = suggest_key(typed, value, known)
        assert advice is not None
        assert advice.fix == fix


def test_equally_near_keys_are_listed() -> None:
    advice = suggest_key("trainer.m_epochs", 3, names())
    assert advice is not None
    assert advice.fix == "trainer.max_epochs=3\ntrainer.min_epochs=3"


def test_distance() -> None:
    assert compute_distance("devcies", "devices") == 1
    assert compute_distance("lrr", "lr") == 1
    assert compute_distance("abc", "xyz", 2) == 3
    assert fold_name("Batch-Size") == fold_name("batch_size")
