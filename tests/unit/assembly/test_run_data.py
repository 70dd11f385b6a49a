"""The data module of a run: built once in a process, and as if nothing had used it before the fit."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mlscale import commands
from mlscale.assembly.run_data import RunData
from mlscale.config import derive
from mlscale.data.data_module import OrderedData

BUILT: Counter[str] = Counter()


class Drawn(Dataset[Any]):
    """Draws its samples when it is built, and counts them as they are loaded."""

    def __init__(self) -> None:
        BUILT["dataset"] += 1
        self.x = torch.rand(12, 3)
        self.bias, self.shift, self.loaded = np.random.rand(), random.random(), 0
        self.targets = [0, 1] * 6

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        self.loaded += 1
        return self.x[index] + self.bias + self.shift, self.targets[index]


class Own(pl.LightningDataModule):
    """A user's data module that reports no facts."""

    def __init__(self, locked: bool = False) -> None:
        super().__init__()
        BUILT["module"] += 1
        self.lock = threading.Lock() if locked else None
        self.set_up = 0

    def setup(self, stage: str) -> None:
        self.set_up += 1

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.arange(6.0)), batch_size=2, shuffle=True)


def config(data: dict[str, Any], seed: int = 3) -> DictConfig:
    return OmegaConf.create({"seed": seed, "data": data, "augment": None, "derived": {"per_device_batch": 2}})


def drawn(**changes: Any) -> DictConfig:
    dataset = {"_target_": f"{__name__}.Drawn"}
    return config(
        {"_target_": "mlscale.data.DatasetData", "train": dataset, "val": dataset, "batch_size": 4, **changes}
    )


@pytest.fixture(autouse=True)
def _count() -> None:
    BUILT.clear()


def numbers() -> tuple[float, ...]:
    return torch.rand(1).item(), random.random(), float(np.random.rand())


def fit_state(data: RunData, cfg: DictConfig) -> tuple[Any, ...]:
    """What a fit starts from: random numbers, the state of the data set, and its first batches."""
    module: Any = data.build_for_fit(cfg)
    after = numbers()
    module.setup("fit")
    loaded = module._datasets["train"].loaded
    batches = [batch["x"].tolist() for batch in module.train_dataloader()]
    return after, loaded, module.state_dict()["position"], batches


def test_a_fit_starts_as_if_nothing_had_used_the_module() -> None:
    used, cfg = RunData(), drawn()
    torch.manual_seed(8)
    random.seed(8)
    np.random.seed(8)
    before = numbers()
    torch.manual_seed(8)
    random.seed(8)
    np.random.seed(8)
    facts = used.collect_facts(cfg)
    assert facts is not None
    assert facts["train_samples"] == 12
    batches = used.load_first_batches(cfg, 2)
    assert [len(batch["x"]) for batch in batches] == [2, 2]  # of one process and one accumulated pass
    assert numbers() == before  # the caller's random numbers go on
    assert BUILT["dataset"] == 2  # train and val
    fresh = RunData()
    fresh.collect_facts(cfg)
    assert fit_state(used, cfg) == fit_state(fresh, cfg)
    assert fit_state(RunData(), cfg)[0] == fit_state(fresh, cfg)[0]


def test_a_users_module_is_copied_for_a_probe_and_built_again_only_if_that_fails() -> None:
    data, cfg = RunData(), config({"_target_": f"{__name__}.Own"})
    assert data.collect_facts(cfg) is None
    assert BUILT["module"] == 0  # it reports no facts: to build it would tell nothing
    assert len(data.load_first_batches(cfg, 4)) == 3
    module: Any = data.build_for_fit(cfg)
    assert (module.set_up, BUILT["module"]) == (0, 1)
    BUILT.clear()
    locked = config({"_target_": f"{__name__}.Own", "locked": True})
    assert len(data.load_first_batches(locked, 1)) == 1
    module = data.build_for_fit(locked)
    assert (module.set_up, BUILT["module"]) == (0, 2)


def test_other_data_is_another_module() -> None:
    data = RunData()
    first = data.build_module(drawn())
    assert data.build_module(drawn()) is first
    assert data.build_module(drawn(batch_size=6)) is not first
    data.release_module()
    assert data.build_module(drawn(batch_size=6)) is not first
    assert data.build_module(OmegaConf.create({"seed": 0, "derived": {}})) is None


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a data module is built and a config derived, in this process."""
    found: Counter[str] = Counter()
    build, derived = OrderedData.__init__, derive._derive_layout

    def count_build(self: Any, *args: Any, **named: Any) -> None:
        found["built"] += 1
        build(self, *args, **named)

    def count_derived(*args: Any) -> Any:
        found["derived"] += 1
        return derived(*args)

    monkeypatch.setattr(OrderedData, "__init__", count_build)
    monkeypatch.setattr(derive, "_derive_layout", count_derived)
    return found


def test_a_command_builds_its_data_and_derives_its_config_once(folder: Path, counted: Counter[str]) -> None:
    once = {"built": 1, "derived": 1}
    run = ["recipe=tabular", "trainer.max_epochs=1", "snapshot=false", "logger=none"]
    for command, words in (
        ("train", run),
        ("evaluate", ["ref=last"]),
        ("estimate", [*run, "estimate.probe_seconds=0"]),
    ):
        counted.clear()
        commands.run_command(command, words)
        # An estimate takes two steps of a run of its own, which builds as a run does.
        assert counted == ({"built": 2, "derived": 2} if command == "estimate" else once), command
