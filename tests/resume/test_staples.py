"""Each staple across an interruption: the same weights, the same entries, and its own state, to the bit."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mlscale.cli import main
from mlscale.train.callbacks import EMA, GradNorm, LRMonitor
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file
from scripts.same_run import differences as same_run
from tests.conftest import runs_in
from tests.resume.commands import end, ended
from tests.resume.test_every_step import Case, differences, run

CASES: dict[str, Case] = {
    "ema": {"staples": [partial(EMA, decay=0.9)]},  # its first update, by default, is that of step 10 of 12
    "ema of every step": {"staples": [partial(EMA, decay=0.9, every=1)]},
    "ema of every third step, later": {"staples": [partial(EMA, every=3, start=4)], "val_check_interval": 0.5},
    "polyak, accumulated": {"staples": [partial(EMA, warmup="polyak", every=1)], "accumulate_grad_batches": 2},
    "lr_monitor": {"staples": [partial(LRMonitor, weight_decay=True)]},
    "grad_norm": {"staples": [partial(GradNorm, per_layer=True)], "gradient_clip_val": 0.5},
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


STILL: list[Any] = ["lr_monitor", "grad_norm"]


@pytest.mark.filterwarnings("ignore:.*val_loss which is not available")
def test_what_only_looks_changes_nothing(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", None, {"max_epochs": 1}, tmp_path / "saves-plain")
    staples = [kind for name in STILL for kind in CASES[name]["staples"]]
    looked_at = run(tmp_path / "staples", None, {"max_epochs": 1, "staples": staples}, tmp_path / "saves-staples")
    assert differences(plain["weights"], looked_at["weights"]) == []
    last = [sorted((tmp_path / name).glob("*.ckpt"))[-1] for name in ("saves-plain", "saves-staples")]
    one, other = (load_checkpoint_file(path) for path in last)
    assert differences(one["optimizer_states"], other["optimizer_states"]) == []
    assert all(torch.isfinite(value).all() for value in other["state_dict"].values() if value.is_floating_point())


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_all_of_them_across_a_kill(folder: Path, devices: int) -> None:
    """With BatchNorm, whose running means each rank has its own of, and the average with them."""
    short = ["++trainer.limit_train_batches=8", "trainer.max_epochs=2", "callbacks.checkpoint.every_n_steps=3"]
    staples = ["callbacks=[default,ema,grad_norm,lr_monitor,device_stats]", "callbacks.ema.every=2"]
    staples += ["scheduler=warmup_cosine"]
    words = ("+recipe=resnet", "snapshot=false", *short, *staples, "trainer.log_every_n_steps=2")
    words = (*words, f"trainer.devices={devices}", "trainer.gradient_clip_val=1")
    assert main([*words, "runs_dir=undisturbed"]) == 0
    code, printed = ended(folder, *words, end("step", folder, step=11, whom="group"))
    assert code == -signal.SIGKILL, printed
    assert main(["runs", "resume", "last", "trust=true"]) == 0
    (whole,), (run,) = runs_in(folder / "undisturbed"), runs_in(folder / "runs")
    assert same_run(whole, run) == []
    best = [load_checkpoint_file(path / "checkpoints/best.ckpt") for path in (whole, run)]
    assert differences(*(each["state_dict"] for each in best)) == []
    assert differences(*(each["current_model_state"] for each in best)) == []
