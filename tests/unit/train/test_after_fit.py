"""What comes after a fit: on the first rank alone, in the callbacks' order, not once a signal has arrived."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlscale.data import Digits
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.train import graceful_stop as signals
from mlscale.train.after_fit import (
    AfterFitResult,
    hide_trainer,
    load_best_checkpoint,
    locate_best_checkpoint,
    run_after_fit_hooks,
)
from tests.unit.fitting import classifier


class Says:
    def __init__(self, reported: AfterFitResult | None, called: list[Any]) -> None:
        self.reported, self.called = reported, called

    def after_fit(self, trainer: Any, module: Any) -> AfterFitResult | None:
        self.called.append(self)
        return self.reported


def trainer(*callbacks: Any, first: bool = True) -> Any:
    return SimpleNamespace(callbacks=[*callbacks], is_global_zero=first, default_root_dir="runs/a")


def test_the_first_rank_calls_those_that_have_something_to_do() -> None:
    called: list[Any] = []
    one, none = Says(AfterFitResult({"a": 1}, "said"), called), Says(None, called)
    assert run_after_fit_hooks(trainer(one, object(), none), classifier()) == [one.reported]
    assert called == [one, none]
    assert run_after_fit_hooks(trainer(one, first=False), classifier()) == []
    assert called == [one, none]


def test_a_signal_during_one_of_them_is_heeded_before_the_next() -> None:
    called: list[Any] = []

    class Interrupted(Says):
        def after_fit(self, trainer: Any, module: Any) -> AfterFitResult | None:
            signal.raise_signal(signal.SIGTERM)
            return super().after_fit(trainer, module)

    first = Interrupted(None, called)
    with (
        signals.handle_stop_signals(),
        pytest.raises(MLScaleError, match="stopped by SIGTERM after the fit, without Says") as reported,
    ):
        run_after_fit_hooks(trainer(first, Says(None, called)), classifier())
    assert reported.value.exit == Exit.TERMINATED
    assert called == [first]


def test_the_best_checkpoint_and_where_there_is_none_the_last(tmp_path: Path) -> None:
    run = trainer()
    run.checkpoint_callback = SimpleNamespace(dirpath=str(tmp_path), best_model_path="")
    assert locate_best_checkpoint(run) is None
    with pytest.raises(MLScaleError, match="the run has saved no checkpoint"):
        load_best_checkpoint(run, classifier())
    task, other = classifier(), classifier()
    with torch.no_grad():
        other.model.weight.add_(1)  # type: ignore[operator]
    save(tmp_path / "last.ckpt", task)
    assert load_best_checkpoint(run, classifier()) == tmp_path / "last.ckpt"
    save(tmp_path / "best.ckpt", other)
    run.checkpoint_callback.best_model_path = str(tmp_path / "best.ckpt")
    assert load_best_checkpoint(run, task) == tmp_path / "best.ckpt"
    assert torch.equal(task.model.weight, other.model.weight)  # type: ignore[arg-type]
    run.checkpoint_callback = None
    assert locate_best_checkpoint(run) is None


def save(path: Path, task: torch.nn.Module) -> None:
    writer = AtomicCheckpointWriter(path)
    torch.save({"state_dict": task.state_dict()}, writer)  # type: ignore[arg-type]
    writer.commit_checkpoint(CheckpointRecord("other", step=1, epoch=1))


def test_our_data_alone_gives_every_sample_and_goes_back(bundled: Path) -> None:
    data = Digits(batch_size=50, root=bundled, workers=0)
    data.prepare_data()
    ranks: Any = SimpleNamespace(world_size=2, global_rank=1, accumulate_grad_batches=1, num_devices=2)
    data.trainer = ranks
    assert sum(len(batch["y"]) for batch in data.val_dataloader()) < 200
    with hide_trainer(data):
        assert sum(len(batch["y"]) for batch in data.val_dataloader()) == 360
    assert data.trainer is ranks
    theirs: Any = SimpleNamespace(trainer=ranks)
    with hide_trainer(theirs):
        assert theirs.trainer is ranks
