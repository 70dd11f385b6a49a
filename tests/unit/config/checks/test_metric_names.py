"""The metrics that a task logs are read from its class; another program's name for one is refused before a run."""

from __future__ import annotations

import pytest

from mlscale.config.checks.metric_names import _read_metric_names
from tests.unit.config.checks.composed_names import problems


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("Classification", {"loss", "accuracy", "balanced_accuracy", "auc"}),
        ("Language", {"loss", "bits_per_byte", "perplexity"}),
        ("Multilabel", {"loss", "map", "f1_macro", "f1_micro", "exact_match"}),
        ("Regression", {"loss", "mae", "rmse", "r2"}),
        ("Segmentation", {"loss", "miou", "dice", "pixel_accuracy"}),
        ("NoSuchTask", set()),
    ],
)
def test_what_a_task_logs(task: str, names: set[str]) -> None:
    assert set(_read_metric_names(f"mlscale.tasks.{task}")) == names


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("metric=val/acc", "metric=val/accuracy"),
        ("metric=val_loss", "metric=val/loss"),
        ("metric=top1 mode=min", "metric=val/accuracy mode=max"),
        ("metric=eval_accuracy", "metric=val/accuracy"),
        ("callbacks.checkpoint.monitor=val/acc", "callbacks.checkpoint.monitor=val/accuracy"),
        ("metric=metrics/mAP50", ""),
        ("metric=f1", ""),
        ("recipe=segmentation metric=val/iou", "metric=val/miou"),
        ("recipe=segmentation metric=val/acc", "metric=val/pixel_accuracy"),
        ("recipe=gpt metric=val/ppl", "metric=val/perplexity"),
    ],
)
def test_a_metric_under_another_name_is_refused(words: str, fix: str) -> None:
    (problem,) = problems(words.split())
    assert "is not logged" in problem.what
    assert problem.fix == fix


@pytest.mark.parametrize("metric", ["val/auc", "val/accuracy", "train/loss", "val/f1", "val/iou"])
def test_what_a_module_may_log_is_accepted(metric: str) -> None:
    assert problems([f"metric={metric}"]) == []


def test_a_third_party_module_may_log_under_any_name() -> None:
    assert problems(["model._target_=torch.nn.Identity", "metric=my_metric"]) == []
