"""Which way a metric gets better, by its name, and which one judges a run."""

import pytest

from mlscale.config.metric_direction import (
    find_nearest_metric,
    find_total_loss,
    get_stage,
    infer_direction,
)

_MIN = (
    "val_loss", "valLoss", "valloss", "val/dice_loss", "loss/validation", "val/top1_error", "val_err1", "nll",
    "val_mse", "neg_log_likelihood", "val/bits_per_byte", "val/perplexity", "false_positive_rate", "val_rmse",
    "WER", "kl", "peak_memory_bytes", "p99_ms", "time_s",
)  # fmt: skip
_MAX = (
    "val/accuracy", "val_acc1", "val_top5", "mAP", "val/mAP50", "val_F1Score", "MulticlassAccuracy", "BinaryAUROC",
    "neg_mean_squared_error", "val/r2", "hit_rate", "recall@5", "val/acc_best", "val_map@50",
    "throughput_samples_per_s", "val/score",
)  # fmt: skip


@pytest.mark.parametrize("name", _MIN)
def test_less_is_better(name: str) -> None:
    assert infer_direction(name) == "min"


@pytest.mark.parametrize("name", _MAX)
def test_more_is_better(name: str) -> None:
    assert infer_direction(name) == "max"


@pytest.mark.parametrize("name", ["val/foo", "x", "epoch", "lr", ""])
def test_a_name_that_does_not_tell(name: str) -> None:
    assert infer_direction(name) is None


@pytest.mark.parametrize(
    ("meant", "logged", "found"),
    [
        ("val/accuracy", ["train/loss", "train_acc", "val_acc", "val_loss"], "val_acc"),
        ("val/accuracy", ["train/accuracy", "val_loss"], "val_loss"),
        ("val_los", ["val_loss", "val_acc"], "val_loss"),
        ("val/accuracy", ["train/loss"], "train/loss"),
        ("val/loss", ["val_loss", "val_acc"], "val_loss"),
        ("val/loss", ["held_epoch_time", "held_acc"], "held_acc"),
        ("val/accuracy", [], None),
    ],
)
def test_the_nearest_is_of_the_same_stage(meant: str, logged: list[str], found: str | None) -> None:
    assert find_nearest_metric(meant, logged) == found


def test_the_loss_of_a_validation() -> None:
    assert find_total_loss(["train/loss", "val/loss/box", "val/loss/total", "val_acc"]) == "val/loss/total"
    assert find_total_loss(["train/loss", "val_acc"]) is None


def test_the_stage_is_read_from_the_name() -> None:
    assert [get_stage(name) for name in ("validation_loss", "val/x", "ptl/val_accuracy", "train_loss", "loss")] == [
        "val", "val", "val", "train", None,
    ]  # fmt: skip
