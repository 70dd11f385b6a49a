"""`every=auto`: when it saves, by a clock of the test, and what it prints and keeps."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files
from mlscale.runs.host.processes import measure_process_age
from mlscale.train.callbacks.checkpoints import Checkpoints
from mlscale.train.checkpoint import auto_interval
from mlscale.train.checkpoint import step_boundary as boundary
from mlscale.train.checkpoint.auto_interval import compute_limited_interval, format_choice
from mlscale.train.checkpoint.failed_saves import guard_checkpoint_callbacks
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from tests.unit.fitting import At, Loader, batches, classifier, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
STEP = 10.0  # seconds of the clock


class Clock:
    """The clock of the training: a step takes `STEP` seconds, and a save `cost`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
        self.now, self.cost = 1000.0, cost
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def advance(self, *_: object) -> None:
        self.now += STEP

    def charge_save(self, io: VerifiedCheckpointIO) -> None:
        """Let each save through `io` take the cost."""
        save = io.save_checkpoint

        def save_checkpoint(*arguments: Any, **options: Any) -> None:
            self.now += self.cost
            save(*arguments, **options)

        io.save_checkpoint = save_checkpoint  # type: ignore[method-assign]


def fit(clock: Clock, folder: Path, count: int, *, resumed: Path | None = None, epochs: int = 1, **more: Any) -> Any:
    """Fit `count` batches, and return the module, the callback, and the steps of the periodic checkpoints."""
    options: dict[str, Any] = {"every": "auto", "mtbf_hours": 24, "keep": -1, "save_top_k": 0, "asynchronous": False}
    callback, io = Checkpoints(folder, **(options | more)), VerifiedCheckpointIO()
    clock.charge_save(io)
    run = trainer(
        enable_checkpointing=True, plugins=[io], callbacks=[At(clock.advance), callback], max_epochs=epochs
    )  # fmt: skip
    boundary.install_boundaries(run)
    guard_checkpoint_callbacks(run)
    module = classifier()
    run.fit(module, Loader(batches(count)), Loader(batches(1)), ckpt_path=resumed)
    records = [found.record for found in list_checkpoint_files(folder) if found.record]
    return module, callback, sorted(record.step for record in records if record.kind == "periodic")


def test_the_first_save_measures_and_the_others_follow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, cost=2.0)
    _, callback, steps = fit(clock, tmp_path, 200)
    assert callback.state_dict()["save_costs"][0] == pytest.approx(2.0)
    period = compute_limited_interval(2.0, 86_400) + 2.0
    assert period == pytest.approx(588.5, abs=0.1)  # Young's 587.9 s, and Daly's correction
    # Ten seconds a step: the first after a minute, then at the first boundary at which the period has passed.
    assert steps[0] == 6
    assert all(later - earlier == -(-(period - 2.0) // STEP) for earlier, later in itertools.pairwise(steps))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("checkpoint every")]
    assert len(lines) == 1
    assert lines[0].startswith("checkpoint every 9 min 49 s: a save costs 2.0 s, one failure a day is expected")


def test_a_line_where_the_interval_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, cost=0.1)

    class Slower(pl.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            clock.cost = 0.1 if arguments[-1] < 20 else 4.0

    monkeypatch.setattr(auto_interval, "_COSTS", 3)
    io, callback = VerifiedCheckpointIO(), Checkpoints(tmp_path, every="auto", mtbf_hours=24, asynchronous=False)
    clock.charge_save(io)
    run = trainer(enable_checkpointing=True, plugins=[io], callbacks=[At(clock.advance), Slower(), callback])
    boundary.install_boundaries(run)
    run.fit(classifier(), Loader(batches(300)), Loader(batches(1)))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("checkpoint every")]
    # The median of three: the first slow save changes nothing.
    assert [line.split("a save costs ")[1].split(",")[0] for line in lines] == ["100 ms", "4.0 s"]


def test_runs_that_fail_often_save_early_and_within_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch, cost=3.0)
    _, _, steps = fit(clock, tmp_path, 60, mtbf_hours=0.1)
    assert steps[0] == 4  # a tenth of six minutes
    assert all((later - earlier) * STEP >= 3.0 / 0.03 - 3.0 for earlier, later in itertools.pairwise(steps))


def test_the_epochs_own_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`last.ckpt` is one to resume from: where epochs are shorter than the interval nothing else is needed."""
    clock = Clock(monkeypatch, cost=2.0)
    _, _, steps = fit(clock, tmp_path, 20, epochs=6)
    assert steps == [6]


def test_a_resumed_run_knows_what_a_save_costs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch, cost=2.0)
    assert fit(clock, tmp_path, 70)[-1] == [6, 65]
    _, callback, steps = fit(clock, tmp_path, 70, epochs=2, resumed=tmp_path / "last.ckpt")
    assert steps == [6, 65, 70 + 59]  # and no first one after a minute
    assert callback.state_dict()["save_costs"][0] == pytest.approx(2.0)


def test_the_training_is_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch, cost=2.0)
    saved, _, steps = fit(clock, tmp_path / "auto", 130, asynchronous=True)
    without, _, none = fit(clock, tmp_path / "none", 130, every=None, mtbf_hours=None)
    assert len(steps) >= 2
    assert none == []
    for one, other in zip(saved.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_writers_cpu_time_is_a_part_of_the_cost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(VerifiedCheckpointIO, "get_writing_seconds", lambda *_: 8.0)
    monkeypatch.setattr(auto_interval, "count_usable_cores", lambda: 4)
    clock = Clock(monkeypatch, cost=2.0)
    _, callback, _ = fit(clock, tmp_path, 10)
    assert callback.state_dict()["save_costs"] == pytest.approx([4.0])


def test_the_thread_measures_itself(tmp_path: Path) -> None:
    io = VerifiedCheckpointIO()
    content = {"global_step": 1, "weight": torch.zeros(3_000_000)}
    io.in_background = True
    io.save_checkpoint(content, tmp_path / "a.ckpt")
    assert io.get_writing_seconds(tmp_path / "a.ckpt") is None
    io.finish_save()
    seconds = io.get_writing_seconds(tmp_path / "a.ckpt")
    assert seconds is not None
    assert 0 < seconds < 10
    io.in_background = False
    io.save_checkpoint(content, tmp_path / "at_once.ckpt")
    assert io.get_writing_seconds(tmp_path / "at_once.ckpt") == 0.0
    assert io.get_writing_seconds(tmp_path / "a.ckpt") == seconds  # still known after another save
    assert io.get_writing_seconds(tmp_path / "other.ckpt") is None
    io.teardown()


def test_the_line_of_a_limited_interval() -> None:
    line = format_choice(1.0, 36.0, 5.0)
    assert line.startswith("checkpoint every 33.3 s: a save costs 1.0 s, one failure in 36.0 s is expected (")
    assert "saves may take 3 % of the time" in line
    assert "3 %" not in format_choice(0.4, 86_400.0, 5.0).split(";")[0]


def test_the_age_of_this_process() -> None:
    before = measure_process_age()
    assert before is not None
    time.sleep(0.05)
    later = measure_process_age()
    assert later is not None
    assert 0.04 < later - before < 5
    assert before > 0.1  # torch was imported


@pytest.mark.parametrize("other", [{"every_n_steps": 3}, {"every_n_minutes": 1.5}])
def test_another_interval_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(MLScaleError, match="both set") as caught:
        Checkpoints(every="auto", **other)
    assert caught.value.fix == f"callbacks.checkpoint.{next(iter(other))}=null; or callbacks.checkpoint.every=null"


def test_a_time_between_failures_is_positive() -> None:
    with pytest.raises(MLScaleError, match="mtbf_hours is 0"):
        Checkpoints(every="auto", mtbf_hours=0)
