"""What judges a run: what was set, what the task implies, the loss."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig

from mlscale import api
from mlscale.assembly.build import build
from mlscale.config.metric_choice import (
    check_metric_direction,
    derive_metric,
    describe_classes,
    follow_own_metrics,
    is_set,
    reuse_choice,
)
from mlscale.config.schema.roots import find_roots
from mlscale.task_types.registry import get_task_type

_THEIRS = [
    "task._target_=pytorch_lightning.demos.boring_classes.BoringModel",
    "data=none",
    "model=none",
    "optimizer=none",
]
_OWN = "model._target_=torch.nn.Identity"  # which may log under any name
_NO_VALIDATION = "task._target_=pytorch_lightning.LightningModule"


def config(*words: str) -> DictConfig:
    return api.compose([*words])


@pytest.mark.parametrize(
    ("words", "metric", "mode"),
    [
        ([], "val/accuracy", "max"),
        (["task=multilabel"], "val/map", "max"),
        (["task=segmentation"], "val/miou", "max"),
        (["task=regression"], "val/rmse", "min"),
        (["task=language"], "val/bits_per_byte", "min"),
        ([_OWN, "metric=val_bce"], "val_bce", "min"),
        (["metric=val/r2"], "val/r2", "max"),
        (["metric=val/foo", "mode=min"], "val/foo", "min"),
        ([_OWN, "metric=val_bce", "mode=max"], "val_bce", "max"),
        (["mode=min"], "val/loss", "min"),
        (["trainer.limit_val_batches=0"], "train/loss", "min"),
        (["debug=overfit"], "train/loss", "min"),
        (["debug=overfit", "metric=train/acc"], "train/acc", "max"),
        (["recipe=regression", "metric=val/r2"], "val/r2", "max"),
        (_THEIRS, "val/loss", "min"),
        ([*_THEIRS, "mode=min"], "val/loss", "min"),
        ([_NO_VALIDATION, *_THEIRS[1:]], "train/loss", "min"),
        ([*_THEIRS, "metric=val/acc"], "val/acc", "max"),
    ],
)
def test_what_judges_a_run(words: list[str], metric: str | None, mode: str | None) -> None:
    cfg = config(*words)
    assert derive_metric(cfg) == {"metric": metric, "mode": mode}
    assert is_set(cfg, "metric") == any("metric=" in word or "debug=" in word for word in words)
    assert not list(check_metric_direction(cfg))


@pytest.mark.parametrize("recipe", sorted(find_roots().files["recipe"]))
def test_every_recipe_is_judged_by_something_and_leaves_the_mode_to_it(recipe: str) -> None:
    cfg = config(f"recipe={recipe}")
    kind = build(cfg.task, "task", _partial_=True).func.kind
    assert derive_metric(cfg)["metric"] == get_task_type(kind).default_metric
    assert not is_set(cfg, "mode")


@pytest.mark.parametrize(
    ("words", "where", "fix"),
    [
        (["metric=val/foo"], "metric=val/foo", "mode=max\nmode=min"),
        (
            ["callbacks=[default,early_stopping]", "callbacks.early_stopping.monitor=val/foo"],
            "callbacks.early_stopping.monitor=val/foo",
            "callbacks.early_stopping.mode=max\ncallbacks.early_stopping.mode=min",
        ),
    ],
)
def test_a_direction_that_nothing_reports_is_asked_for(words: list[str], where: str, fix: str) -> None:
    (problem,) = check_metric_direction(config(*words))
    assert (problem.where, problem.fix) == (where, fix)
    for override in fix.splitlines():
        assert not list(check_metric_direction(config(*words, override)))


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        (["callbacks.early_stopping.monitor=val/loss"], "min"),
        (["callbacks.early_stopping.monitor=val/loss", "callbacks.early_stopping.mode=max"], "max"),
        ([], "max"),
    ],
)
def test_a_callback_with_a_metric_of_its_own_has_its_direction(words: list[str], mode: str) -> None:
    cfg = config("callbacks=[default,early_stopping]", *words)
    cfg.derived.update(derive_metric(cfg))
    follow_own_metrics(cfg)
    assert cfg.callbacks.early_stopping.mode == mode
    assert cfg.callbacks.checkpoint.mode == "max"


def test_an_earlier_choice_is_kept_where_the_config_leaves_it_open() -> None:
    before = {"metric": "val_f1", "mode": "max", "threads": 1}
    assert reuse_choice(config(*_THEIRS), before) == {"metric": "val_f1", "mode": "max"}
    assert reuse_choice(config(*_THEIRS, "metric=val_f1"), before) == {"mode": "max"}
    assert reuse_choice(config(*_THEIRS), {"metric": None}) == {}


def test_the_checkpoints_own_metric_judges_the_run() -> None:
    assert derive_metric(config("callbacks.checkpoint.monitor=val/loss")) == {"metric": "val/loss", "mode": "min"}
    typed = config("callbacks.checkpoint.monitor=val/loss", "metric=val/accuracy")
    assert derive_metric(typed) == {"metric": "val/accuracy", "mode": "max"}


@pytest.mark.parametrize(
    ("words", "counts", "metric"),
    [
        ([], [960, 40], "val/auc"),
        ([], [960, 40, 400], "val/balanced_accuracy"),
        ([], [400, 400], "val/accuracy"),
        (["metric=val/accuracy"], [960, 40], "val/accuracy"),
        (["mode=min"], [960, 40], "val/loss"),
        (["task=segmentation"], [960, 40], "val/miou"),
        (["+callbacks.checkpoint.monitor=val/loss"], [960, 40], "val/loss"),
    ],
)
def test_a_rare_class_is_judged_by_more_than_accuracy(words: list[str], counts: list[int], metric: str) -> None:
    cfg = config(*words)
    chosen = derive_metric(cfg, counts)
    assert chosen["metric"] == metric
    # A run that accuracy has judged before is resumed and evaluated by it.
    before = {"metric": "val/accuracy", "mode": "max"}
    assert reuse_choice(cfg, before).get("metric") == (None if "metric=" in "".join(words) else "val/accuracy")


def test_classes_are_described_for_tasks_of_one_class() -> None:
    cfg = config()
    cfg.derived.class_counts, cfg.derived.class_names = [960, 40], ["nein", "ja"]
    assert describe_classes(cfg) == "4.0 % ja; always nein would reach 96.0 % of the training samples"
    other = config("task=segmentation")
    other.derived.class_counts = [960, 40]  # pixels
    assert describe_classes(other) == describe_classes(config()) == ""
