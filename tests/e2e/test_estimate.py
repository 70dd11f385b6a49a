"""`mlscale estimate`, as a user types it: against a run, with limits, and with a task of one's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlscale import commands
from mlscale.cli import main
from mlscale.commands.estimate import measurements as estimate_probe
from mlscale.commands.estimate.measurements import _BASE_BYTES, _RESIDENT_FACTOR
from tests.conftest import runs_in

SHORT = ["recipe=resnet", "trainer.max_epochs=3", "estimate.probe_seconds=1"]
BRIEF = [*SHORT[:2], "estimate.probe_seconds=0.2"]  # where only that it is timed matters


@pytest.mark.slow
def test_what_a_run_will_take(folder: Path) -> None:
    found = commands.run_command("estimate", SHORT)
    metrics = found.metrics
    assert found.ok, found.sentence
    assert list(folder.iterdir()) == []  # no run folder
    assert metrics["steps"] == 3 * 22
    assert metrics["peak_memory_bytes"] == pytest.approx(11.4 * 2**20, rel=0.03)  # 9.0, and the copy that a save writes
    parts = ("parameters", "gradients", "optimizer_state", "activations", "scratch")
    assert sum(metrics[f"{part}_bytes"] for part in parts) == metrics["peak_memory_bytes"]
    assert metrics["resident_memory_bytes"] > metrics["peak_memory_bytes"]
    took = commands.run_command("train", [*SHORT[:2], "snapshot=false"]).metrics["time_s"]
    # Within a tenth on a quiet machine (scripts/bench_estimate.py); tests run beside others.
    assert 0.3 < metrics["time_s"] / took < 3


def test_a_gate_that_is_not_met(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["estimate.probe_seconds=0", "estimate.memory_limit=5MiB", "estimate.max_hours=1"]
    assert main(["estimate", "+recipe=resnet", *limits, "output=json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert "more than the 5.0 MiB of a process" in document["sentence"]
    assert "an unknown time is more than estimate.max_hours=1" in document["sentence"]
    assert document["metrics"]["cost_usd"] is None
    assert not runs_in(folder)


POOLING = """
import torch


class Pooling(torch.nn.Sequential):
    def __init__(self, num_classes=10):
        pools = [torch.nn.MaxPool2d(2) for _ in range(4)]
        super().__init__(*pools, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, num_classes))
"""


def test_images_that_are_too_small_for_a_model(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digits have 8×8 pixels, of which four poolings leave none; torch logs that by itself, with a traceback."""
    (folder / "pooling_model.py").write_text(POOLING)
    monkeypatch.syspath_prepend(folder)
    model = ["model=none", "model._target_=pooling_model.Pooling"]
    assert main(["estimate", "recipe=resnet", *model, "estimate.probe_seconds=0"]) == 2
    reported = capfd.readouterr().err
    assert "Pooling can't take images of 8×8 pixels" in reported
    assert "fix:   data.image_size=<one that it takes" in reported
    assert "Traceback" not in reported


def test_a_run_that_saves_after_its_last_step_alone_has_no_copy(folder: Path) -> None:
    words = ["recipe=resnet", "estimate.probe_seconds=0", "trainer.max_epochs=-1", "trainer.max_steps=10"]
    found = commands.run_command("estimate", words)
    assert found.metrics["peak_memory_bytes"] == pytest.approx(9.0 * 2**20, rel=0.03)


def test_a_larger_batch_in_bf16_accumulated(folder: Path) -> None:
    words = ["recipe=resnet", "estimate.probe_seconds=0", "data.batch_size=512"]
    whole, half, bf16 = (
        commands.run_command("estimate", [*words, *more]).metrics["peak_memory_bytes"]
        for more in ([], ["trainer.accumulate_grad_batches=2"], ["precision=bf16"])
    )
    assert half < 0.7 * whole
    assert bf16 < 0.7 * whole


def test_an_instance_has_a_price_and_a_gpu(folder: Path) -> None:
    words = [*BRIEF, "estimate.instance=aws/g5.xlarge", "estimate.budget_usd=1"]
    found = commands.run_command("estimate", words)
    assert found.ok
    assert found.metrics["memory_limit_bytes"] == 24 * 2**30
    assert found.metrics["cost_usd"] == pytest.approx(found.metrics["time_s"] / 3600 * 1.006)
    assert found.metrics["unverified_context_bytes"] > 0


@pytest.mark.slow
def test_a_batch_without_room_for_it_is_traced_and_not_timed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = commands.run_command("estimate", [*SHORT[:2], "data.batch_size=256", "estimate.probe_seconds=0"])
    # Free memory is set, not taken: so much that a process whose tensors take half of the peak fits, and no larger one.
    free = _BASE_BYTES + _RESIDENT_FACTOR * whole.metrics["peak_memory_bytes"] / 2
    monkeypatch.setattr(estimate_probe, "get_free_memory", lambda: int(free))
    found = commands.run_command("estimate", [*BRIEF, "data.batch_size=256"])
    assert "traced" in found.details["memory_by"]
    assert found.metrics["peak_memory_error_percent"] == 25
    assert found.metrics["peak_memory_bytes"] == pytest.approx(whole.metrics["peak_memory_bytes"], rel=0.25)
    assert found.sentence.endswith("; time not probed, since the run does not fit into the free memory")
    assert "resident_memory_bytes" not in found.metrics


@pytest.mark.parametrize("probe", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_two_processes_share_the_batch(folder: Path, probe: int) -> None:
    found = commands.run_command("estimate", [*SHORT[:2], "trainer.devices=2", f"estimate.probe_seconds={probe}"])
    alone = commands.run_command("estimate", [*SHORT[:2], "data.batch_size=32", "estimate.probe_seconds=0"])
    # DDP's buckets hold gradients once more while they are sent.
    more = found.metrics["peak_memory_bytes"] - alone.metrics["peak_memory_bytes"]
    assert 0 < more <= 2 * found.metrics["gradients_bytes"]
    assert found.metrics.get("steps") == (3 * 22 if probe else None)
    assert not runs_in(folder)


def test_a_sweep_compares_what_runs_would_take(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["+recipe=resnet", "estimate.probe_seconds=0", "metric=peak_memory_bytes", "mode=min"]
    assert main(["estimate", "-m", *words, "data.batch_size=128,32"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "data.batch_size" in line]
    assert [row[1] for row in rows] == ["data.batch_size=32", "data.batch_size=128"]  # the least first


OWN = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset


class Task(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        self.log("train/loss", loss.item())  # a value that no fake tensor has
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(96, 4), torch.zeros(96, dtype=torch.long)), batch_size=8)
"""


def test_ones_own_task_that_looks_at_values_and_data_that_says_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "own_parts.py").write_text(OWN)
    (folder / "conf/task").mkdir(parents=True)
    (folder / "conf/task/own.yaml").write_text("_target_: own_parts.Task\n")
    words = ["task=own", "model=none", "optimizer=none", "data=none", "data._target_=own_parts.Data"]
    words += ["metric=train/loss", "mode=min"]
    assert main(["estimate", *words, "trainer.max_epochs=4", "estimate.probe_seconds=0.2", "output=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "a trace was not possible" in found["details"]["memory_by"]
    assert found["metrics"]["steps"] == 4 * 12
    assert 0 < found["metrics"]["time_s"] < 60
    assert not runs_in(folder)


READING = """
import torch


class Reading(torch.nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.head, self.wide = torch.nn.Linear(64, num_classes), torch.nn.Linear(64, 4000)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(x) + self.wide(x).sum(1, keepdim=True) * (x.mean() > 100).item()
"""


@pytest.mark.slow
def test_torch_does_not_warn_between_the_lines(folder: Path) -> None:
    (folder / "reading_model.py").write_text(READING)
    model = ["model=none", "model._target_=reading_model.Reading", "recipe=resnet", "estimate.probe_seconds=0"]
    # In a new process, as torch reads the level of its log when it is imported.
    command = [sys.executable, "-m", "mlscale", "estimate", *model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "a trace was not possible" in done.stdout
    assert "CPUAllocator" not in done.stderr


UNSEEN = """
import torch
from pytorch_lightning import Callback
from torch.profiler import ProfilerActivity, profile


class Model(torch.nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.convolutions = torch.nn.Sequential(
            torch.nn.Conv2d(1, 32, 1), *[torch.nn.Conv2d(32, 32, 3, padding=1, groups=32) for _ in range(3)]
        )
        self.lstm, self.head = torch.nn.LSTM(32, 64, batch_first=True), torch.nn.Linear(64, num_classes)

    def forward(self, x):
        return self.head(self.lstm(self.convolutions(x).flatten(2).transpose(1, 2))[0][:, -1])


class AllocatorPeak(Callback):
    def __init__(self, path):
        self.path = path

    def setup(self, trainer, pl_module, stage):
        self.weights = sum(weight.nbytes for weight in pl_module.parameters())
        self.profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self.profiler.start()

    def on_train_end(self, trainer, pl_module):
        self.profiler.stop()
        events = [event for event in self.profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        total = peak = self.weights
        for event in sorted(events, key=lambda each: each.start_ns()):
            total += event.nbytes()
            peak = max(peak, total)
        with open(self.path, "w") as file:
            file.write(str(peak))
"""


@pytest.mark.parametrize(
    "more",
    [
        ["precision.memory_format=channels_last"],
        ["data.batch_size=4"],  # so that the copy of the state that a save leaves is a large part
        pytest.param(["precision=bf16", "precision.memory_format=channels_last"], marks=pytest.mark.slow),
        pytest.param(["callbacks=[default,ema]", "trainer.accumulate_grad_batches=2"], marks=pytest.mark.slow),
        pytest.param(["precision=bf16_true", "optimizer=adamw", "trainer.gradient_clip_val=1"], marks=pytest.mark.slow),
    ],
    ids=["channels_last", "few samples", "bf16 channels_last", "ema accumulated", "bf16_true clipped"],
)
def test_memory_is_that_of_the_run_itself(folder: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    """What a trace does not see: the workspace of an LSTM, and copies of depthwise convolutions in another layout."""
    (folder / "unseen.py").write_text(UNSEEN)
    monkeypatch.syspath_prepend(folder)
    words = ["recipe=resnet", "model=none", "model._target_=unseen.Model", "scheduler=none", *more]
    found = commands.run_command("estimate", [*words, "estimate.probe_seconds=0"])
    peak = f"+callbacks.peak={{_target_:unseen.AllocatorPeak,path:{folder / 'peak'}}}"
    commands.run_command(
        "train", [*words, "trainer.max_epochs=3", "trainer.limit_train_batches=4", "snapshot=false", peak]
    )
    assert found.metrics["peak_memory_bytes"] == pytest.approx(int((folder / "peak").read_text()), rel=0.03)
    assert found.metrics["peak_memory_error_percent"] == 3
    parts = ("parameters", "gradients", "optimizer_state", "activations", "scratch")
    assert sum(found.metrics[f"{part}_bytes"] for part in parts) == found.metrics["peak_memory_bytes"]


def test_a_batch_that_does_not_fit_is_compared_by_a_few_samples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "unseen.py").write_text(UNSEEN)
    monkeypatch.syspath_prepend(folder)
    words = [
        "recipe=resnet",
        "model=none",
        "model._target_=unseen.Model",
        "estimate.probe_seconds=0",
        "data.batch_size=1024",
    ]
    # Free memory is set, not taken: so little that a few samples fit, and a batch does not.
    monkeypatch.setattr(estimate_probe, "get_free_memory", lambda: _BASE_BYTES + 20 * 2**20)
    found = commands.run_command("estimate", words)
    assert "compared with real steps on 8 samples, which took" in found.details["memory_by"]
    assert found.metrics["peak_memory_error_percent"] > 25
