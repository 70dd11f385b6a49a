"""Each staple across an interruption: the same weights, the same entries, and its own state, to the bit."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mlscale.train.callbacks import EMA, DeviceStats, GradNorm, LossSpike, LRMonitor
from mlscale.train.checkpoint_io import load
from tests.resume.test_every_step import Case, differences, run

CASES: dict[str, Case] = {
    "ema": {"staples": [partial(EMA, decay=0.9)]},
    "ema of every third step, later": {"staples": [partial(EMA, every=3, start=4)], "val_check_interval": 0.5},
    "polyak, accumulated": {"staples": [partial(EMA, warmup="polyak")], "accumulate_grad_batches": 2},
    "lr_monitor": {"staples": [partial(LRMonitor, weight_decay=True)]},
    "grad_norm": {"staples": [partial(GradNorm, per_layer=True)], "gradient_clip_val": 0.5},
    "loss_spike": {"staples": [partial(LossSpike, k=0.5, window=8, least=0.05)]},
    "device_stats": {"staples": [partial(DeviceStats, every_s=0.05)]},
}


@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
@pytest.mark.filterwarnings("ignore:.*val_loss which is not available")  # before the first validation
@pytest.mark.parametrize("name", CASES)
def test_a_staple_goes_on_from_every_boundary(tmp_path: Path, name: str) -> None:
    saves, folder, case = tmp_path / "saves", tmp_path / "run", {"max_epochs": 2, **CASES[name]}
    whole = run(folder, None, case, saves)
    rows = (folder / "metrics.csv").read_bytes()
    checkpoints = sorted(saves.glob("*.ckpt"))
    assert len(checkpoints) >= 8
    for checkpoint in checkpoints[1::3]:
        (folder / "metrics.csv").write_bytes(rows)
        again = run(folder, checkpoint, case)
        assert differences(whole, again) == [], checkpoint.name


STILL: list[Any] = ["lr_monitor", "grad_norm", "loss_spike", "device_stats"]


@pytest.mark.filterwarnings("ignore:.*val_loss which is not available")
def test_what_only_looks_changes_nothing(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", None, {"max_epochs": 1}, tmp_path / "saves-plain")
    staples = [kind for name in STILL for kind in CASES[name]["staples"]]
    looked_at = run(tmp_path / "staples", None, {"max_epochs": 1, "staples": staples}, tmp_path / "saves-staples")
    assert differences(plain["weights"], looked_at["weights"]) == []
    last = [sorted((tmp_path / name).glob("*.ckpt"))[-1] for name in ("saves-plain", "saves-staples")]
    one, other = (load(path) for path in last)
    assert differences(one["optimizer_states"], other["optimizer_states"]) == []
    assert all(torch.isfinite(value).all() for value in other["state_dict"].values() if value.is_floating_point())
