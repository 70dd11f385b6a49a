"""float16 with a loss scale, really computed, on a CPU: what is skipped, logged, held back, kept, and ended."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn

from mlscale.errors import Exit, MLScaleError
from mlscale.tasks import Classification
from mlscale.train.callbacks import NonFinite
from mlscale.train.loggers.csv_logger import CSV
from mlscale.train.precision import LossScale, Mixed, create_precision_plugin, set_memory_layout
from mlscale.train.trainer_patches import apply_trainer_patches
from tests.unit.fitting import At, batches, classifier, fit, trainer

HUGE = 2.0**24  # the scaled gradients overflow in float16, until it was halved some times
RATE = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step))


class Dtypes(nn.Module):
    """A network that notes what it computes in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        self.seen: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> Any:
        out = self.net(x)
        self.seen.add(out.dtype)
        return out


def run(plugin: Mixed, steps: int = 12, *more: pl.Callback, **arguments: Any) -> tuple[pl.Trainer, Classification]:
    task = classifier(model=Dtypes(), scheduler=RATE)
    made = trainer(callbacks=[LossScale(plugin), NonFinite(), *more], **arguments)
    made.strategy.precision_plugin = plugin
    apply_trainer_patches(made)
    fit(made, task, batches(steps))
    return made, task


def test_it_computes_in_float16_and_counts_what_it_skips() -> None:
    plugin = Mixed("cpu", HUGE)
    made, task = run(plugin)
    assert isinstance(task.model, Dtypes)
    assert task.model.seen == {torch.float16}
    assert 0 < plugin.skipped < 12
    assert plugin.scale == HUGE / 2**plugin.skipped
    assert plugin.in_a_row == 0
    assert made.callback_metrics["train/skipped_steps"] == plugin.skipped
    assert made.callback_metrics["train/loss_scale"] == plugin.scale


def test_a_skipped_step_leaves_weights_and_schedule_alone() -> None:
    plugin = Mixed("cpu", HUGE)
    seen: list[tuple[int, float, torch.Tensor]] = []

    def note(run: Any, module: Any, index: int) -> None:
        rate = run.optimizers[0].param_groups[0]["lr"]
        seen.append((plugin.skipped, rate, module.model.net[0].weight.detach().clone()))

    made, _ = run(plugin, 12, At(note))
    assert made.global_step == 12
    before = (0, 0.1, seen[0][2])  # the first is skipped
    taken = 0
    for skipped, rate, weight in seen:
        if skipped > before[0]:
            assert torch.equal(weight, before[2])
        else:
            taken += 1
            assert not torch.equal(weight, before[2])
        # The hook comes before the schedule of its step: it has advanced by the steps taken before this one.
        before = (skipped, rate, weight)
    assert taken == 12 - plugin.skipped
    assert made.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 / (1 + taken))


def test_twenty_in_a_row_have_diverged(tmp_path: Path) -> None:
    data = batches(40)
    for batch in data[5:]:
        batch["x"][0] = float("inf")
    plugin = Mixed("cpu")
    made = trainer(callbacks=[LossScale(plugin), NonFinite()])
    made.strategy.precision_plugin = plugin
    apply_trainer_patches(made)
    task = classifier(model=Dtypes())
    with pytest.raises(MLScaleError, match="20 optimizer steps in a row were skipped, up to step 24") as caught:
        fit(made, task, data)
    assert caught.value.exit == Exit.DIVERGED
    assert "come down to 0.0625" in caught.value.why
    assert all(torch.isfinite(p).all() for p in task.parameters())


def test_a_loss_that_overflows_once_is_skipped() -> None:
    plugin = Mixed("cpu")
    data = batches(6)
    data[2]["x"][0] = float("inf")
    made = trainer(callbacks=[LossScale(plugin), NonFinite()])
    made.strategy.precision_plugin = plugin
    fit(made, classifier(model=Dtypes()), data)
    assert plugin.skipped == 1


def test_it_takes_over_the_scale_of_lightnings_own_plugin() -> None:
    theirs = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))
    plugin = Mixed("cpu")
    plugin.on_load_checkpoint({"MixedPrecision": theirs.state_dict()})
    assert (plugin.scale, plugin.skipped) == (8.0, 0)


@pytest.mark.parametrize(("every", "steps"), [(4, ["3", "7", "11"]), (5, ["4", "9", "11"])])
def test_trackers_get_scale_and_skipped_steps_once_a_step(tmp_path: Path, every: int, steps: list[str]) -> None:
    """The last step of an epoch among them."""
    plugin = Mixed("cpu", HUGE)
    logger = CSV(str(tmp_path))
    made, _ = run(plugin, 12, logger=logger, log_every_n_steps=every)
    logger.flush()
    rows = [row for row in logger._read_rows()[1] if row.get("train/loss_scale")]
    assert [row["step"] for row in rows] == steps
    assert float(rows[-1]["train/skipped_steps"]) == plugin.skipped == made.callback_metrics["train/skipped_steps"]


def test_which_settings_get_a_plugin_of_ours() -> None:
    found = create_precision_plugin({"value": "16-mixed", "loss_scale": 16.0, "max_skipped": 3, "on_cpu": True}, "cpu")
    assert isinstance(found, Mixed)
    assert (found.scale, found.max_skipped, found.device) == (16.0, 3, "cpu")
    assert create_precision_plugin({"value": "bf16-mixed"}, "cpu") is None
    assert create_precision_plugin({"value": "16-mixed"}, "mps") is None


def test_convolutions_take_over_the_layout_of_their_weights() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    task = classifier(model=net)
    set_memory_layout(task, None)
    assert net(torch.zeros(2, 3, 8, 8)).is_contiguous()
    set_memory_layout(task, "channels_last")
    assert net(torch.zeros(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)
