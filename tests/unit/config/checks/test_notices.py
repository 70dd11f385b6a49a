"""What a run says before it starts: promises that its data does not keep."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.config.checks.notices import collect_notices
from mlscale.data import Promises
from mlscale.launch.local_devices import LocalDevices

LAPTOP = LocalDevices(cuda=0, mps=False, cores=4, cuda_bf16=False)
HERE = "tests.unit.config.checks.test_notices"


class Elsewhere:
    """Data that says nothing of itself."""


class Forgetful:
    promises: ClassVar[Promises] = Promises(order=True, resume=False, elastic=False)


def told(
    data: dict[str, Any],
    callbacks: dict[str, Any] | None = None,
    derived: dict[str, Any] | None = None,
    precision: dict[str, Any] | None = None,
    **trainer: Any,
) -> list[str]:
    cfg = OmegaConf.create(
        {
            "data": data,
            "callbacks": callbacks,
            "precision": precision,
            "logger": {"csv": {}},
            "derived": {"world_size": 1, "accelerator": "cpu", **(derived or {})},
            "trainer": trainer,
            "strategy": {},
            "metric": "val/loss",
            "task": {"_target_": "mlscale.tasks.Classification"},
        }
    )
    return collect_notices(cfg, LAPTOP)


@pytest.mark.parametrize("name", ["WebDataset", "ImageFolder", "Digits", "FashionMNIST", "DatasetData"])
def test_what_keeps_all_promises_says_nothing(name: str) -> None:
    assert told({"_target_": f"mlscale.data.{name}"}) == []


def test_what_is_lost_is_told() -> None:
    assert told({"_target_": f"{HERE}.Forgetful"}) == [f"{HERE}.Forgetful does not promise: resume, elastic"]
    (line,) = told({"_target_": f"{HERE}.Elsewhere"})
    assert line.startswith(f"{HERE}.Elsewhere is used unchanged: exact order, exact resume and equal global batches")
    assert told({}) == ["data=none: order and resume are whatever the task's own loaders give"]


@pytest.mark.parametrize("several", [True, False])
def test_a_precision_of_the_users_own(several: bool) -> None:
    node = {"_target_": "pytorch_lightning.plugins.MixedPrecision", "precision": "16-mixed", "device": "cpu"}
    plugins = [node, {"_target_": "pytorch_lightning.plugins.io.TorchCheckpointIO"}] if several else node
    line = "precision has no effect: trainer.plugins brings its own"
    assert told({"_target_": "mlscale.data.Digits"}, plugins=plugins) == [line]
    assert told({"_target_": "mlscale.data.Digits"}, plugins=["anything"]) == []


def on_a_cpu(task: str, **settings: Any) -> DictConfig:
    cfg = {
        "data": {"_target_": "mlscale.data.Digits"},
        "derived": {"world_size": 1, "accelerator": "cpu"},
        "trainer": {},
        "strategy": {},
        "metric": "val/loss",
        "task": {"_target_": task},
    }
    return OmegaConf.create({**cfg, **settings})


def test_settings_of_other_devices_and_of_tasks_without_a_model() -> None:
    cfg = on_a_cpu(f"{HERE}.Elsewhere", compile=True, tf32=False)
    assert collect_notices(cfg, LAPTOP) == [
        "tf32 has no effect on cpu: it is a way of CUDA devices to multiply",
        f"compile has no effect: {HERE}.Elsewhere takes no 'model'; torch.compile it there, "
        "compile=false silences this",
    ]


def test_a_debugger_that_is_waited_for_on_no_port() -> None:
    cfg = on_a_cpu("mlscale.tasks.Classification", debugger={"port": None, "wait": True})
    assert collect_notices(cfg, LAPTOP) == ["debugger.wait has no effect without a port: debugger.port=5678"]
    cfg.debugger.port = 5678
    assert collect_notices(cfg, LAPTOP) == []


@pytest.mark.parametrize(
    ("settings", "steps", "said"),
    [
        ({}, 100, ""),
        ({}, 99, "renews the average 9 times in 99 steps with callbacks.ema.every=10: callbacks.ema.every=1 suits"),
        ({}, 10, "renews the average once in 10 steps"),
        ({}, 9, "has no effect in 9 steps with callbacks.ema.every=10: callbacks.ema.every=1"),
        ({}, 1, "has no effect in 1 step with"),
        ({"every": 1}, 3, ""),
        ({"every": 1, "start": 3}, 3, "every=1 and callbacks.ema.start=3: callbacks.ema.start=0"),
        ({"start": 95}, 104, "renews the average once"),
        ({"start": 95}, 1000, ""),
        ({}, None, ""),
        ({"every": 0}, 3, ""),  # is refused where it is built
    ],
)
def test_a_run_that_is_too_short_for_an_average(settings: dict[str, Any], steps: int | None, said: str) -> None:
    node = {"_target_": "mlscale.train.callbacks.EMA", **settings}
    total = {"total_steps": steps}
    lines = told({"_target_": "mlscale.data.Digits"}, callbacks={"ema": node}, derived=total)
    assert len(lines) == bool(said)
    assert said in "".join(lines)
    assert told({"_target_": "mlscale.data.Digits"}, callbacks={"ema": {"_target_": "my.EMA"}}, derived=total) == []
