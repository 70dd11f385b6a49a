"""A trace tells what differs between a run and the same run killed and resumed, and whose it is."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mlscale.train.callbacks import Checkpoints, StepSeed
from mlscale.train.checkpoint.exact_resume import ExactResume
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.trainer_patches import apply_trainer_patches
from mlscale.verify_resume import resume_verdict as verdict
from mlscale.verify_resume import traces
from mlscale.verify_resume.killed_run import KillPoint
from mlscale.verify_resume.resume_verdict import describe_attribute
from mlscale.verify_resume.trace import Trace
from tests.unit.fitting import trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*exists and is not empty")  # the folder of the attempt before
HERE = __name__
STEPS, STOP = 12, 8  # of two epochs; where the interrupted run ends: in the second epoch, two steps after a checkpoint


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Twenty-four points, moved by a generator of its own if it is asked to."""

    def __init__(self, own: bool = False) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x, self.y = torch.randn(24, 3, generator=generator), torch.arange(24) % 2
        self.noise = np.random.default_rng(3) if own else None

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        moved = 0.0 if self.noise is None else float(self.noise.normal())
        return self.x[index] + moved, self.y[index]


class Module(pl.LightningModule):
    """Multiplies its loss with what `factor` makes of itself and the step."""

    def __init__(self, factor: Callable[["Module"], Any] = lambda module: 1.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.counter = 0
        self.queue = torch.zeros(3)
        self.rng = random.Random(5)
        self.seen: list[int] = []
        self.factor = factor

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = nn.functional.cross_entropy(self.net(batch[0]), batch[1]) * self.factor(self)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.05)


class Decay(pl.Callback):
    """Sets the learning rate from a number that it remembers."""

    def __init__(self) -> None:
        self.rate = 0.05

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.rate *= 0.9
        trainer.optimizers[0].param_groups[0]["lr"] = self.rate


class Restored(Module):
    """Saves its counter, which follows a variable that no object has."""

    def __init__(self) -> None:
        hidden = itertools.count()

        def follow(module: Module) -> float:
            module.counter = next(hidden)
            return 1 + 0.1 * module.counter

        super().__init__(follow)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["counter"] = self.counter

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.counter = checkpoint["counter"]


def count(module: Module) -> float:
    module.counter += 1
    return 1 + 0.1 * module.counter


def mean(module: Module) -> Tensor:
    module.queue = module.queue * 0.5 + 1
    return module.queue.sum()


def note(module: Module) -> float:
    module.seen.append(len(module.seen))
    return 1.0


def train(
    folder: Path, resume: Path | None, steps: int, make: Callable[[], dict[str, Any]]
) -> list[list[traces.TraceLine]]:
    """One attempt, with new objects as in another process; the lines of all attempts so far."""
    pl.seed_everything(3, verbose=False)
    parts = {"module": Module, "callbacks": list, "data": Points} | make()
    module = parts["module"]()
    callbacks = [ExactResume(3), StepSeed(3), *parts["callbacks"](), Trace(str(folder / "trace"))]
    callbacks.append(Checkpoints(folder / "checkpoints", every_n_steps=3))
    fitting = trainer(max_epochs=2, max_steps=steps, callbacks=callbacks, enable_checkpointing=True)
    fitting.strategy.checkpoint_io = VerifiedCheckpointIO()
    apply_trainer_patches(fitting)
    loader = DataLoader(parts["data"](), 4, shuffle=True)
    fitting.fit(module, loader, DataLoader(Points(), 12), ckpt_path=resume, weights_only=True)
    return traces.read_traces(folder / "trace")


def interrupted(tmp_path: Path, make: Callable[[], dict[str, Any]] = dict) -> tuple[Any, Any]:
    """The trace of a whole run, and that of one that ended early and went on from the checkpoint before."""
    whole = train(tmp_path / "whole", None, STEPS, make)
    train(tmp_path / "cut", None, STOP, make)
    lines = tmp_path / "cut/trace/rank0.jsonl"
    # As a kill leaves it: nothing is written at the end of the fit, and the last line is cut short.
    kept = [line for line in lines.read_text().splitlines() if '"kind":"end"' not in line]
    while '"kind":"epoch"' in kept[-1] or '"kind":"save"' in kept[-1] or '"kind":"validation"' in kept[-1]:
        kept.pop()
    lines.write_text("\n".join(kept) + '\n{"kind":"st')
    return whole, train(tmp_path / "cut", tmp_path / "cut/checkpoints/step=6.ckpt", STEPS, make)


def test_every_boundary_has_a_line(tmp_path: Path) -> None:
    (lines,) = train(tmp_path, None, STEPS, dict)
    assert [line.step for line in lines if line.kind == "step"] == list(range(1, STEPS + 1))
    assert [line.step for line in lines if line.kind == "epoch"] == [6, 12]
    assert [line.step for line in lines if line.kind == "begin"] == [0, 6]
    assert [line.step for line in lines if line.kind == "validation"] == [6, 12]
    assert [line.step for line in lines if line.kind == "end"] == [12]
    saves = [index for index, line in enumerate(lines) if line.kind == "save"]
    assert saves
    for index in saves:  # a checkpoint is never ahead of the trace
        assert any(line.step == lines[index].step and line.kind == "step" for line in lines[:index])
    steps = [line.content for line in lines if line.kind == "step"]
    assert len({holds["tensors"]["parameter net.0.weight"] for holds in steps}) == STEPS
    assert len({holds["optimizer"]["optimizer: exp_avg of net.2.bias"] for holds in steps}) == STEPS
    assert {holds["optimizer"]["optimizer: lr of group 0"] for holds in steps} == {(0.05).hex()}
    assert all(len(holds["losses"]) == 1 == len(holds["batches"]) for holds in steps)
    assert set(steps[0]["generators"]) == {"torch", "python", "numpy"}


def test_a_run_that_saves_all_is_identical(tmp_path: Path) -> None:
    whole, other = interrupted(tmp_path)
    assert max(line.attempt for line in other[0]) == 2
    assert traces.find_resumed_step(other[0], 2) == 6
    found = traces.compare_traces(whole, other)
    assert found.difference is None
    assert found.lost == []


@pytest.mark.parametrize(
    ("make", "owner", "fix"),
    [
        (
            lambda: {"module": lambda: Module(count)},
            f"attribute `counter` of {HERE}.Module is 0 instead of 6",
            "checkpoint['counter'] = self.counter",
        ),
        (lambda: {"module": lambda: Module(mean)}, f"attribute `queue` of {HERE}.Module", "register_buffer('queue'"),
        (
            lambda: {"module": lambda: Module(lambda module: module.rng.random())},
            f"random generator `rng` of {HERE}.Module",
            "checkpoint['rng'] = the state of rng",
        ),
        (
            lambda: {"callbacks": lambda: [Decay()]},
            f"attribute `rate` of the callback {HERE}.Decay is 0.05 instead of 0.0265720",
            "return rate in state_dict() of the callback",
        ),
        (
            lambda: {"data": lambda: Points(own=True)},
            f"random generator `noise` of the loader's {HERE}.Points (dataset)",
            "(seed, epoch, sample)",
        ),
    ],
)
def test_what_is_in_no_checkpoint_is_named(tmp_path: Path, make: Any, owner: str, fix: str) -> None:
    whole, other = interrupted(tmp_path, make)
    found = traces.compare_traces(whole, other)
    assert found.difference is not None
    assert (found.difference.line.kind, found.difference.line.step, found.difference.line.attempt) == ("step", 7, 2)
    reported = verdict.describe_different_run(verdict.KillTrial(KillPoint("step", STOP), 6, found))
    assert reported.startswith(
        "not bit-identical: killed at step 8, the run resumed from step 6 and first differs at step 7"
    )
    assert f"not saved: {owner}" in reported
    assert fix in reported.split("fix: ")[1]


def test_an_attribute_without_a_consequence_is_a_warning(tmp_path: Path) -> None:
    whole, other = interrupted(tmp_path, lambda: {"module": lambda: Module(note)})
    found = traces.compare_traces(whole, other)
    assert found.difference is None
    assert {describe_attribute(part) for part in found.lost} == {f"attribute `seen` of {HERE}.Module differs"}
    reported = verdict.describe_identical_runs([verdict.KillTrial(KillPoint("step", STOP), 6, found)])
    assert reported.startswith("bit-identical: 1 kill at step 8 resumed to the same weights, losses and validations\n")
    assert "without a consequence so far: attribute `seen`" in reported


def test_what_is_right_after_the_restore_is_not_the_cause(tmp_path: Path) -> None:
    whole, other = interrupted(tmp_path, lambda: {"module": Restored})
    found = traces.compare_traces(whole, other)
    assert found.difference is not None
    reported = verdict.describe_different_run(verdict.KillTrial(KillPoint("step", STOP), 6, found))
    assert "first differs at step 7" in reported
    assert "not saved" not in reported
    assert "a global variable" in reported.split("fix: ")[1]


def test_a_run_that_does_not_repeat_differs_without_a_kill(tmp_path: Path) -> None:
    drawn = random.SystemRandom()
    make = lambda: {"module": lambda: Module(lambda _: drawn.random())}  # noqa: E731
    one, other = (train(tmp_path / name, None, 3, make) for name in ("one", "other"))
    found = traces.compare_traces(one, other)
    tried = verdict.KillTrial(KillPoint("step", 2), None, found)
    assert tried.differs_before_the_kill
    reported = verdict.describe_unrepeatable_run(found)
    assert reported.startswith("your run differs from itself without any interruption: first at step 1\n  loss is ")
