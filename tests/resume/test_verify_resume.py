"""`mlscale verify-resume` as a user runs it: processes that are killed, and resumed, and a verdict."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.conftest import runs_in
from tests.contract.commands import ROOT, mlscale

SHORT = ["+recipe=resnet", "model=mlp", "trainer.max_epochs=2", "trainer.limit_train_batches=3"]
SHORT += ["trainer.limit_val_batches=1"]
OWN = """
import random, time
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset


class Module(pl.LightningModule):
    def __init__(self, how="plain"):
        super().__init__()
        self.how, self.counter, self.rng, self.net = how, 0, random.Random(5), nn.Linear(4, 3)

    def training_step(self, batch, index):
        self.counter += self.how == "counter"
        factor = {"clock": time.time() % 1, "rng": self.rng.random() if self.how == "rng" else 0}.get(self.how, 0)
        if self.how == "put":  # into place: one of the few operations without a deterministic kernel on a CPU
            batch[0].put_(torch.arange(4), batch[0].flatten()[:4].clone())
        if self.how == "fail":
            raise ValueError("trouble of my own")
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1]) * (1 + self.counter + factor)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    def train_dataloader(self):
        torch.manual_seed(1)
        data = TensorDataset(torch.randn(24, 4), torch.arange(24) % 3)
        own = torch.Generator().manual_seed(7) if self.how == "sampler" else None
        return DataLoader(data, 4, sampler=RandomSampler(data, generator=own))
"""
MINE = ["task=mine", "data=none", "model=none", "optimizer=none", "metric=train/loss", "mode=min"]
MINE += ["trainer.max_epochs=3", "kills=2"]


@pytest.fixture
def scratch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where scratch folders are made; a folder of a user's with a module of theirs is stood in."""
    (folder / "own.py").write_text(dedent(OWN))
    (folder / "conf/task").mkdir(parents=True)
    (folder / "conf/task/mine.yaml").write_text("# Mine.\n_target_: own.Module\nhow: plain  # str: how it fails\n")
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # sockets are made there: paths of 107 bytes at most
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(short)


def verify(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = mlscale(folder, "verify-resume", *words, "output=json", env=env, timeout=800)
    assert runs_in(folder / "runs") == [], "none of its runs is the user's"
    return done


@pytest.mark.slow
def test_the_shipped_recipe_is_identical(folder: Path, scratch: Path) -> None:
    done = verify(folder, *SHORT, "kills=1", "kill_seed=3", "+callbacks.checkpoint.every_n_steps=1")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] is True
    assert result["metrics"] | {"time_s": 0, "trace_bytes": 0} == {
        "kills": 1, "identical": 1, "steps": 6, "trace_bytes": 0, "time_s": 0,
    }  # fmt: skip
    assert result["sentence"].startswith("bit-identical: 1 kill at step ")
    assert "(kill_seed=3)" in done.stderr
    assert "resumed from step " in done.stderr
    assert list(scratch.glob("mlscale-*")) == []


@pytest.mark.slow
def test_the_means_of_batch_norm_are_each_ranks_own(folder: Path, scratch: Path) -> None:
    words = ["+recipe=resnet", "model.widths=[8]", "trainer.max_epochs=1", "trainer.limit_train_batches=6"]
    done = verify(folder, *words, "trainer.devices=2", "callbacks.checkpoint.every_n_steps=2", "kills=1", "kill_seed=2")
    assert done.returncode == 0, done.stderr
    assert "resumed from step " in done.stderr


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "devices", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.nightly)]
)
def test_killed_at_a_step_a_save_and_a_validation(folder: Path, scratch: Path, devices: int) -> None:
    done = verify(folder, *SHORT, "keep=true", f"trainer.devices={devices}", "kills=4")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["metrics"]["identical"] == 4
    assert "between two checkpoints; " in done.stderr
    assert "a checkpoint half written; " in done.stderr
    assert "within a validation; " in done.stderr
    kept = Path(result["artifacts"]["scratch"])
    assert kept.parent == scratch
    traces = list(kept.glob("*/killed-*/trace/rank*.jsonl"))
    assert len(traces) == 4 * devices
    assert all(text.count('"kind":"attempt"') == 2 for text in (path.read_text() for path in traces))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("how", "reported"),
    [
        pytest.param(
            "counter", "not saved: attribute `counter` of own.Module is 0 instead of 6", marks=pytest.mark.slow
        ),
        pytest.param("rng", "not saved: random generator `rng` of own.Module differs", marks=pytest.mark.nightly),
    ],
)
def test_what_is_lost_is_named(folder: Path, scratch: Path, how: str, reported: str) -> None:
    done = verify(folder, *MINE, f"task.how={how}", "kills=3")
    assert done.returncode == 4, done.stderr
    sentence = json.loads(done.stdout)["sentence"]
    assert sentence.startswith("not bit-identical: killed at step ")
    assert reported in sentence
    assert "first tensor: parameter net.weight" in sentence
    assert "fix: on_save_checkpoint" in sentence
    assert list(scratch.glob("mlscale-*")) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sampler_with_a_generator_is_found_where_it_happens_to_be_right_again(folder: Path, scratch: Path) -> None:
    done = verify(folder, *MINE, "task.how=sampler", "kill_seed=4")
    assert "killed    at step 18, a checkpoint half written; resumed from step 12: different" in done.stderr
    assert done.returncode == 4, done.stderr
    sentence = json.loads(done.stdout)["sentence"]
    assert "its loader gave other batches, without a consequence so far" in sentence
    assert "fix: give the loader a state_dict() that holds the generator of its sampler" in sentence


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("torchrun", marks=pytest.mark.slow),
        pytest.param("kubernetes", marks=pytest.mark.nightly),
        pytest.param("skypilot", marks=pytest.mark.nightly),
    ],
)
def test_ranks_that_a_launcher_starts_are_killed_with_it(folder: Path, scratch: Path, launcher: str) -> None:
    words = [*SHORT, f"launch={launcher}", "trainer.devices=2", "kills=1", "callbacks.checkpoint.every_n_steps=1"]
    done = verify(folder, *words, "keep=true", "kill_seed=3")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["metrics"]["identical"] == 1
    assert "resumed from step " in done.stderr
    kept = Path(result["artifacts"]["scratch"])
    (log,) = kept.glob("killed-*.log")
    assert log.read_text().count("ranks     2, started by torchrun or a launcher like it") == 2
    assert len(list(kept.glob("*/killed-*/trace/rank*.jsonl"))) == 2
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(kept).encode() in _read(path)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_error_of_a_rank_keeps_its_exit_code_under_a_launcher(folder: Path, scratch: Path) -> None:
    done = verify(folder, *SHORT, "launch=torchrun", "trainer.devices=2", "data.batch_size=7")
    assert done.returncode == 2, done.stderr
    assert "the run fails without any kill: data.batch_size=7 does not divide by 2" in done.stderr
    # Its runs are resumed, which keeps the batch; and nothing of torchrun's is printed.
    assert done.stderr.rstrip().endswith("fix:   start 1 process")


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["launch=torchrun", "trainer.devices=auto"], "launch=torchrun needs a number of processes"),
        (["launch=kubernetes", "trainer.devices=2", "launch.dry_run=true"], "which launch.dry_run forbids"),
        (["launch=slurm", "trainer.devices=2", "kills=1"], "launch=slurm trainer.devices=2 output=json\n"),
        (["launch=slurm", "trainer.devices=2", "kills=1"], "fix:   mlscale drill +recipe="),
    ],
)
def test_a_launcher_without_what_it_needs(folder: Path, scratch: Path, words: list[str], reported: str) -> None:
    done = verify(folder, *SHORT, *words)
    assert done.returncode == 2
    assert reported in done.stderr
    assert list(scratch.glob("mlscale-*")) == []
    assert not (folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_does_not_repeat_is_another_finding(folder: Path, scratch: Path) -> None:
    done = verify(folder, *MINE, "task.how=clock")
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["sentence"].startswith(
        "your run differs from itself without any interruption: first at step 1\n"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_fails_or_is_too_short(folder: Path, scratch: Path) -> None:
    done = verify(folder, *MINE, "task.how=fail")
    assert done.returncode == 1
    assert "error: the run fails without any kill: ValueError: trouble of my own" in done.stderr
    assert "own.py:" in done.stderr
    done = verify(folder, "+recipe=resnet", "model=mlp", "debug=fast")
    assert done.returncode == 2
    assert "the run takes 1 optimizer step: there is nothing between two steps to kill" in done.stderr
    assert list(scratch.glob("mlscale-*")) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_stopping_it_leaves_no_process(folder: Path, scratch: Path, signum: signal.Signals) -> None:
    words = ["verify-resume", "+recipe=resnet", "model=mlp", "trainer.max_epochs=10000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlscale", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 250
        while not list(scratch.glob("*/*/*/trace/rank0.jsonl")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        process.send_signal(signum)
        _, printed = process.communicate(timeout=60)
    finally:
        process.kill()
    if signum == signal.SIGTERM:
        assert process.returncode == 143, printed
        assert list(scratch.glob("mlscale-*")) == []
    end = time.monotonic() + 60
    while left := [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(scratch).encode() in _read(path)]:
        assert signum == signal.SIGKILL, left
        assert time.monotonic() < end, left
        time.sleep(0.1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_mistake_is_reported_before_anything_starts(folder: Path, scratch: Path) -> None:
    done = verify(folder, *SHORT, "kils=3")
    assert done.returncode == 2
    assert "unknown key 'kils'" in done.stderr
    assert "kills=3" in done.stderr
    assert list(scratch.glob("mlscale-*")) == []


@pytest.mark.slow
def test_operations_without_a_deterministic_kernel_are_named(folder: Path, scratch: Path) -> None:
    done = verify(folder, *MINE, "task.how=put", "kills=1", "determinism=true")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["sentence"].endswith("without a deterministic kernel: put_")
    assert "kernels   without a deterministic one: put_; where they add up" in done.stderr
