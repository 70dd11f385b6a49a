"""What a run says before it starts: promises that its data does not keep."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.config.notices import collect_notices, get_inelastic_source
from mlscale.data import Promises
from mlscale.launch.local_devices import LocalDevices

LAPTOP = LocalDevices(cuda=0, mps=False, cores=4, cuda_bf16=False)
HERE = "tests.unit.config.test_notices"


class Elsewhere:
    """Data that says nothing of itself."""


class Batched:
    def __init__(self, batch_size: int = 16) -> None:
        self.batch_size = batch_size


class Forgetful:
    promises: ClassVar[Promises] = Promises(order=True, resume=False, elastic=False)


def reported(
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
    assert reported({"_target_": f"mlscale.data.{name}"}) == []


def test_what_is_lost_is_reported() -> None:
    assert reported({"_target_": f"{HERE}.Forgetful"}) == [f"{HERE}.Forgetful does not promise: resume, elastic"]
    (line,) = reported({"_target_": f"{HERE}.Elsewhere"})
    assert line.startswith(f"{HERE}.Elsewhere is used unchanged: exact order, exact resume and equal global batches")
    data = {"_target_": f"{HERE}.Batched", "batch_size": 128}
    assert reported(data, derived={"per_device_batch": 64})[1:] == [
        f"batch_size=64 takes the place of 16, the default of {HERE}.Batched: data.batch_size=32 keeps it"
    ]
    for word in ("data.batch_size=128", "resume=last"):
        assert reported(data, derived={"per_device_batch": 64, "overrides": [word]})[1:] == []
    assert reported(data, derived={"per_device_batch": 16})[1:] == []
    assert reported({}) == ["data=none: order and resume are whatever the task's own loaders give"]


@pytest.mark.parametrize("several", [True, False])
def test_a_precision_of_the_users_own(several: bool) -> None:
    node = {"_target_": "pytorch_lightning.plugins.MixedPrecision", "precision": "16-mixed", "device": "cpu"}
    plugins = [node, {"_target_": "pytorch_lightning.plugins.io.TorchCheckpointIO"}] if several else node
    line = "precision has no effect: trainer.plugins brings its own"
    assert reported({"_target_": "mlscale.data.Digits"}, plugins=plugins) == [line]
    assert reported({"_target_": "mlscale.data.Digits"}, plugins=["anything"]) == []


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


@pytest.mark.parametrize(
    ("settings", "steps", "printed"),
    [
        ({}, 100, ""),
        ({}, 99, "renews the average 9 times in 99 steps with callbacks.ema.every=10: callbacks.ema.every=1 suits"),
        ({}, 10, "renews the average once in 10 steps"),
        ({}, 9, "has no effect in 9 steps with callbacks.ema.every=10: callbacks.ema.every=1"),
        ({}, 1, "has no effect in 1 step with"),
        ({"every": 1}, 3, ""),
        ({"every": 2}, 19, "renews the average 9 times in 19 steps with callbacks.ema.every=2: callbacks.ema.every=1"),
        ({"every": 1, "start": 3}, 3, "every=1 and callbacks.ema.start=3: callbacks.ema.start=0"),
        ({"every": 1, "start": 5}, 3, "has no effect in 3 steps"),
        ({"start": 95}, 104, "renews the average once"),
        ({"start": 95}, 1000, ""),
        ({}, None, ""),
        ({"every": 0}, 3, ""),  # is refused where it is built
    ],
)
def test_a_run_that_is_too_short_for_an_average(settings: dict[str, Any], steps: int | None, printed: str) -> None:
    node = {"_target_": "mlscale.train.callbacks.EMA", **settings}
    total = {"total_steps": steps}
    shown = {"_target_": "mlscale.train.callbacks.Progress"}
    lines = reported({"_target_": "mlscale.data.Digits"}, callbacks={"ema": node, "progress": shown}, derived=total)
    assert len(lines) == bool(printed)
    assert printed in "".join(lines)
    theirs = {"ema": {"_target_": "my.EMA"}, "progress": shown}
    assert reported({"_target_": "mlscale.data.Digits"}, callbacks=theirs, derived=total) == []


@pytest.mark.parametrize(
    ("callbacks", "is_shown"),
    [
        ({"early_stopping": "pytorch_lightning.callbacks.EarlyStopping"}, True),
        ({"mine": "pytorch_lightning.callbacks.ModelCheckpoint"}, False),
        ({"progress": "mlscale.train.callbacks.Progress"}, False),  # ~callbacks.checkpoint was typed
        ({}, False),
    ],
)
def test_callbacks_in_place_of_the_default_ones_save_nothing(callbacks: dict[str, str], is_shown: bool) -> None:
    nodes = {name: {"_target_": target} for name, target in callbacks.items()}
    lines = reported({"_target_": "mlscale.data.Digits"}, callbacks=nodes)
    line = ["no callback saves checkpoints: callbacks=[default,early_stopping] keeps the default ones"]
    assert lines == line * is_shown


class Plain:
    """A task, and data, that take nothing."""


def reported_of(machine: LocalDevices = LAPTOP, **nodes: Any) -> list[str]:
    usual = {
        "data": {"_target_": "mlscale.data.Digits"}, "derived": {"world_size": 1, "accelerator": "cpu"}, "trainer": {},
        "strategy": {}, "metric": "val/loss", "task": {"_target_": "mlscale.tasks.Classification"},
    }  # fmt: skip
    return collect_notices(OmegaConf.create({**usual, **nodes}), machine)


GPUS = LocalDevices(cuda=4, mps=False, cores=4, cuda_bf16=True)


@pytest.mark.parametrize(
    ("world", "accelerator", "lines"),
    [
        (4, "cuda", []), (1, "cuda", ["1 of 4 cuda devices are used: trainer.devices=4 uses all"]), (4, "cpu", []),
        (5, "cpu", ["5 processes share 4 cores: right, but slow"]), (5, "cuda", []),
    ],
)  # fmt: skip
def test_devices_that_idle_or_are_shared(world: int, accelerator: str, lines: list[str]) -> None:
    assert reported_of(GPUS, derived={"world_size": world, "accelerator": accelerator}) == lines


def test_settings_without_effect_on_a_device() -> None:
    ddp = {"_target_": "mlscale.train.strategies.ddp"}
    assert reported_of(strategy=ddp) == ["strategy=ddp has no effect with one device"]
    assert reported_of(strategy=ddp, derived={"world_size": 2, "accelerator": "cpu"}) == []
    cpu = ["tf32 has no effect on cpu: it is a way of CUDA devices to multiply"]
    assert reported_of(tf32=True) == reported_of(tf32=False) == cpu
    assert reported_of(GPUS, tf32=True, derived={"world_size": 4, "accelerator": "cuda"}) == []
    assert reported_of(trainer={"benchmark": True, "deterministic": True}) == [
        "trainer.benchmark has no effect on a CPU", "trainer.deterministic has no effect on a CPU",
    ]  # fmt: skip
    assert reported_of(GPUS, trainer={"benchmark": True}, derived={"world_size": 4, "accelerator": "cuda"}) == []
    (line,) = reported_of(trainer={"limit_val_batches": 0})
    assert line.startswith("no validation, so no val/loss to pick")
    assert reported_of(trainer={"limit_val_batches": 0}, metric="train/loss") == []
    assert reported_of(trainer={"limit_val_batches": 1}) == []


def test_objects_that_the_task_does_not_take() -> None:
    task, plain = {"_target_": f"{HERE}.Plain"}, f"{HERE}.Plain"
    assert reported_of(task=task, model={"a": 1}) == [
        f"model has no effect: {plain} takes none, or has its own; model=none silences this"
    ]
    (line,) = reported_of(task=task, model={"a": 1}, scheduler={"a": 1})
    assert line.startswith(f"model, scheduler have no effect: {plain} takes none, or has its own; model=none sch")
    assert reported_of(model={"a": 1}, compile=True, param_groups=[{"lr": 1}], layer_decay=0.5) == []
    assert reported_of(task=task, param_groups=[], layer_decay=1.0) == []
    assert reported_of(task=task, layer_decay=0.5) == [f"layer_decay: no effect, {plain} makes its optimizer itself"]
    (line,) = reported_of(task=task, compile=True)
    assert line.startswith(f"compile has no effect: {plain} takes no 'model'")
    lines = reported_of(data={"_target_": plain}, augment={"a": 1})
    assert lines[0] == f"augment has no effect: {plain} takes no 'augment'; augment=none silences this"
    assert reported_of(augment={"a": 1}) == []


@pytest.mark.parametrize(
    ("precision", "idle"),
    [
        ({"value": "16-mixed", "loss_scale": 1, "growth_interval": 1, "max_skipped": 1, "on_cpu": True}, []),
        ({"value": "32-true", "loss_scale": 1, "on_cpu": True}, ["loss_scale", "on_cpu"]),
        ({"value": "32-true", "loss_scale": None, "on_cpu": False}, []),
    ],
)
def test_settings_of_another_precision(precision: dict[str, Any], idle: list[str]) -> None:
    lines = reported_of(precision=precision, derived={"world_size": 1, "accelerator": "cpu"})
    assert [line.partition(" ")[0] for line in lines] == [f"precision.{key}" for key in idle]
    assert [line.rpartition("=")[2] for line in lines] == ["fp16"] * len(idle)


def test_the_source_that_promises_no_other_number_of_processes() -> None:
    assert get_inelastic_source(OmegaConf.create({"data": None})) == "the task's own loader"
    for name in ("Forgetful", "Elsewhere"):
        assert get_inelastic_source(OmegaConf.create({"data": {"_target_": f"{HERE}.{name}"}})) == f"{HERE}.{name}"
    assert get_inelastic_source(OmegaConf.create({"data": {"_target_": "mlscale.data.Digits"}})) == ""


def test_a_number_of_steps_that_is_out_of_reach() -> None:
    data = {"_target_": "mlscale.data.Digits"}
    lines = reported(data, derived={"total_steps": 220}, max_epochs=10, max_steps=5000)
    assert any("trainer.max_steps=5000 has no effect" in line and "after 220 steps" in line for line in lines)
    for steps, total in [(100, 100), (-1, 220), (5000, None)]:
        lines = reported(data, derived={"total_steps": total}, max_epochs=10, max_steps=steps)
        assert not any("max_steps" in line for line in lines)
