"""Batch, devices and steps follow from the config, the data and the machine."""

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.commands.train.ranks import RankLayout
from mlscale.config.derive import check_validation_interval, derive_values
from mlscale.errors import MLScaleError
from mlscale.launch.local_devices import LocalDevices

LAPTOP = LocalDevices(cuda=0, mps=False, cores=4, cuda_bf16=False)
BOX = LocalDevices(cuda=4, mps=False, cores=32, cuda_bf16=False)
FACTS = {
    "train_samples": 1437,
    "val_samples": 360,
    "num_classes": 10,
    "channels": 1,
    "height": 8,
    "width": 8,
    "version": "v",
}


def config(batch: int = 64, precision: str = "32-true", **trainer: Any) -> DictConfig:
    trainer = {"devices": 1, "accelerator": "auto", "accumulate_grad_batches": 1, "max_epochs": 10, **trainer}
    return OmegaConf.create({"data": {"batch_size": batch}, "trainer": trainer, "precision": {"value": precision}})


@pytest.fixture(autouse=True)
def no_threads_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_one_process() -> None:
    derived = derive_values(config(), FACTS, LAPTOP)
    assert (derived["world_size"], derived["accelerator"], derived["threads"]) == (1, "cpu", 4)
    assert (derived["per_device_batch"], derived["steps_per_epoch"], derived["total_steps"]) == (64, 22, 220)
    assert (derived["num_classes"], derived["channels"], derived["data_version"]) == (10, 1, "v")


@pytest.mark.parametrize(("devices", "accumulate", "share"), [(8, 1, 8), (2, 4, 8), (4, 2, 8), (1, 8, 8)])
def test_global_batch_is_shared(devices: int, accumulate: int, share: int) -> None:
    derived = derive_values(config(devices=devices, accumulate_grad_batches=accumulate), FACTS, LAPTOP)
    assert derived["per_device_batch"] == share
    assert derived["steps_per_epoch"] == 22


def test_more_processes_than_cores_get_one_thread() -> None:
    assert derive_values(config(devices=8), FACTS, LAPTOP)["threads"] == 1


def test_threads_that_were_typed_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert derive_values(config(devices=8), FACTS, LAPTOP)["threads"] == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # nested levels: not ours to read
    assert derive_values(config(), FACTS, LAPTOP)["threads"] == 4


def test_limits_count() -> None:
    assert derive_values(config(limit_train_batches=0.5), FACTS, LAPTOP)["steps_per_epoch"] == 11
    assert derive_values(config(limit_train_batches=3), FACTS, LAPTOP)["steps_per_epoch"] == 3
    assert derive_values(config(max_steps=100), FACTS, LAPTOP)["total_steps"] == 100


@pytest.mark.parametrize("devices", [0, -2, "two", [0, 1]])
def test_a_trainer_of_ones_own_has_a_number_of_processes_too(devices: object) -> None:
    with pytest.raises(MLScaleError, match="is not a number of processes"):
        derive_values(config(devices=devices), FACTS, LAPTOP)


def test_auto_devices() -> None:
    assert derive_values(config(devices="auto"), FACTS, BOX)["world_size"] == 4
    assert derive_values(config(devices="auto"), FACTS, LAPTOP)["world_size"] == 1


def test_somebody_elses_data() -> None:
    derived = derive_values(config(), None, LAPTOP)
    assert derived["per_device_batch"] == 64
    assert derived["steps_per_epoch"] is derived["num_classes"] is None


MESSAGES = {
    "indivisible": (
        config(batch=60, devices=8),
        LAPTOP,
        "data.batch_size=60 does not divide by 8\n"
        "  where: data.batch_size\n"
        "  why:   it is global: 8 devices × 1 accumulated passes share it evenly\n"
        "  fix:   data.batch_size=64",
    ),
    "too few cards": (
        config(devices=8, accelerator="gpu"),
        BOX,
        "this machine has 4 cuda devices, 8 were asked for\n"
        "  where: trainer.devices=8\n"
        "  why:   on the CPU any number will do: 8 slow processes\n"
        "  fix:   trainer.devices=4\n         trainer.accelerator=cpu",
    ),
    "no card": (
        config(devices=8, accelerator="gpu"),
        LAPTOP,
        "this machine has no cuda device\n"
        "  where: trainer.accelerator=gpu\n"
        "  why:   torch finds none; `mlscale env` prints what it finds\n"
        "  fix:   trainer.accelerator=cpu",
    ),
    "fp16 on a CPU": (
        config(precision="16-mixed"),
        LAPTOP,
        "float16 (16-mixed) does not train on a CPU\n"
        "  where: precision\n"
        "  why:   a CPU has no float16 units: Lightning would compute in bfloat16 without a word; "
        "precision.on_cpu computes it all the same, slowly\n"
        "  fix:   precision=bf16\n         precision.on_cpu=true",
    ),
    "bf16 on an old card": (
        config(precision="bf16-mixed"),
        BOX,
        "this GPU does not compute bfloat16 (bf16-mixed)\n"
        "  where: precision\n"
        "  fix:   precision=fp16\n         precision=fp32",
    ),
    "more batch than data": (
        config(batch=2000),
        LAPTOP,
        "1437 training samples make no batch of 2000\n  where: data.batch_size\n  fix:   data.batch_size=1437",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message(name: str) -> None:
    cfg, machine, message = MESSAGES[name]
    with pytest.raises(MLScaleError) as caught:
        derive_values(cfg, FACTS, machine)
    assert str(caught.value) == message


def test_all_at_once() -> None:
    with pytest.raises(MLScaleError) as caught:
        derive_values(config(batch=63, devices=8, accelerator="gpu"), FACTS, BOX)
    assert str(caught.value).count("fix:") == 2


def test_a_batch_has_samples() -> None:
    with pytest.raises(MLScaleError, match="at least one sample"):
        derive_values(config(accumulate_grad_batches=0), FACTS, LAPTOP)


@pytest.mark.parametrize(
    ("choices", "steps"),
    [
        ({"last": "drop"}, 22),
        ({"last": "pad"}, 23),
        ({"epoch_samples": 300}, 4),
        ({"epoch_samples": 300, "last": "pad"}, 5),
        ({"epoch_samples": 2874}, 44),
    ],
)
def test_what_an_epoch_holds(choices: dict[str, Any], steps: int) -> None:
    cfg = config()
    cfg.data.update(choices)
    assert derive_values(cfg, FACTS, LAPTOP)["steps_per_epoch"] == steps


def test_one_process_alone() -> None:
    cfg = config(devices=2)
    cfg.strategy = {"_target_": "mlscale.train.strategies.single"}
    with pytest.raises(MLScaleError, match="strategy=single runs one process, and 2 are asked for"):
        derive_values(cfg, FACTS, LAPTOP)
    cfg.trainer.devices = 1
    assert derive_values(cfg, FACTS, LAPTOP)["world_size"] == 1


def test_an_epoch_that_makes_no_batch() -> None:
    cfg = config()
    cfg.data.epoch_samples = 50
    with pytest.raises(MLScaleError, match="an epoch of 50 samples makes no batch of 64") as caught:
        derive_values(cfg, FACTS, LAPTOP)
    assert caught.value.where == "data.epoch_samples"


@pytest.mark.parametrize(
    ("trainer", "fix"),
    [
        ({"val_check_interval": 500, "max_epochs": 10}, "trainer.val_check_interval=1.0"),
        ({"val_check_interval": 500, "max_epochs": 100}, "trainer.check_val_every_n_epoch=null"),
    ],
)
def test_an_interval_that_no_epoch_reaches(trainer: dict[str, Any], fix: str) -> None:
    cfg = OmegaConf.create({"trainer": trainer})
    assert isinstance(cfg, DictConfig)
    (problem,) = check_validation_interval(cfg, 22)
    assert problem.fix == fix
    assert not list(check_validation_interval(cfg, 500))


def test_ranks_of_another_launcher_share_batch_cores_and_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    derived = derive_values(config(devices=2), FACTS, LAPTOP, RankLayout(2, 4, 2, False))
    assert (derived["world_size"], derived["nodes"], derived["threads"], derived["per_device_batch"]) == (8, 4, 2, 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert derive_values(config(devices=2), FACTS, LAPTOP, RankLayout(2, 1, 2, False))["threads"] == 1
    assert derive_values(config(devices=2), FACTS, LAPTOP, RankLayout(2, 1, 2, True))["threads"] == 2
    # Devices are counted on this machine, not on all of them.
    assert derive_values(config(devices=4), FACTS, BOX, RankLayout(4, 2, 4, False))["world_size"] == 8


@pytest.mark.parametrize(("features", "typed", "threads"), [(8, "", 1), (8, "3", 3), (8192, "", 4), (None, "", 4)])
def test_a_small_table_has_one_thread(
    monkeypatch: pytest.MonkeyPatch, features: int | None, typed: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", typed)
    assert derive_values(config(), {**FACTS, "features": features}, LAPTOP)["threads"] == threads


def test_a_resumed_run_is_advised_another_number_of_devices_alone() -> None:
    cfg = config(devices=3)
    cfg.resume = "1skg38w58gxt"
    with pytest.raises(MLScaleError) as refused:
        derive_values(cfg, FACTS, LAPTOP)
    assert refused.value.fix == "trainer.devices=2"
    with pytest.raises(MLScaleError) as refused:
        derive_values(cfg, FACTS, LAPTOP, RankLayout(3, 1, 3, False))
    assert refused.value.fix == "start 2 processes"


@pytest.mark.parametrize(
    ("layout", "accumulate", "fix"),
    [
        (RankLayout(3, 1, 3, False), 1, "data.batch_size=63, or start 2 processes"),
        (RankLayout(5, 1, 5, False), 4, "data.batch_size=60, or start 4 processes"),
        (RankLayout(2, 1, 2, False), 3, "data.batch_size=66"),
    ],
)
def test_a_number_of_ranks_that_does_not_divide_the_batch(layout: RankLayout, accumulate: int, fix: str) -> None:
    with pytest.raises(MLScaleError) as refused:
        derive_values(config(devices=layout.devices, accumulate_grad_batches=accumulate), FACTS, LAPTOP, layout)
    assert (refused.value.fix, refused.value.exit) == (fix, 2)
