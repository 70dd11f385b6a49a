"""What a run says of its data before its first step."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.launch.start_notices import format_start_lines

FACTS = {"train_samples": 1437, "val_samples": 360, "sample": (1, 8, 8), "num_classes": 10}


def lines(steps: int, **data: Any) -> dict[str, str]:
    """The start's lines by their first word."""
    derived = {
        "run_dir": "runs/x", "per_device_batch": 64, "world_size": 1, "steps_per_epoch": steps,
        "accelerator": "cpu", "threads": 2, "train_samples": 1437,
    }  # fmt: skip
    node = {"data": {"batch_size": 64, **data}, "trainer": {}, "precision": {"value": "32-true"}, "seed": 0}
    reported = format_start_lines(OmegaConf.create({**node, "derived": derived}), FACTS)
    return {line.split()[0]: line for line in reported}


def test_what_is_left_out_is_counted() -> None:
    assert lines(22)["batch"].endswith("; 22 steps per epoch, 29 samples left out, others each time")
    assert lines(23, last="pad")["batch"].endswith("; 23 steps per epoch")
    assert lines(5)["batch"].endswith("; 5 steps per epoch")  # a limit leaves out much more
    assert "sampling" not in lines(22)


@pytest.mark.parametrize(
    ("data", "reported"),
    [
        ({"sampling": "balanced"}, "every class equally often"),
        ({"sampling": "weighted", "weights": "w.csv"}, "by the weights of w.csv"),
        ({"mix": {"a": 0.7, "b": 3}}, "mixed a 0.7, b 3"),
        ({"epoch_samples": 2000}, "2,000 samples an epoch"),
        ({"last": "pad", "on_bad_sample": "skip"}, "weight 0; bad samples replaced with weight 0"),
    ],
)
def test_how_samples_are_drawn(data: dict[str, Any], reported: str) -> None:
    assert reported in lines(22, **data)["sampling"]


def test_the_shares_of_rare_classes_are_named() -> None:
    task = {"_target_": "mlscale.tasks.Classification"}
    derived = {"class_counts": [40, 960], "class_names": ["ja", "nein"], "run_dir": "runs/x",
               "accelerator": "cpu", "threads": 2, "world_size": 1, "per_device_batch": None}  # fmt: skip
    cfg = OmegaConf.create({"task": task, "metric": "val/auc", "derived": derived, "trainer": {}, "seed": 0,
                            "precision": {"value": "32-true"}})  # fmt: skip
    (line,) = (line for line in format_start_lines(cfg, FACTS) if line.startswith("classes"))
    assert line == "classes   4.0 % ja; always nein would reach 96.0 % of the training samples; judged by val/auc"
