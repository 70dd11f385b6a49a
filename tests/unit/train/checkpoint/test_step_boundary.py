"""When deferred saves are made: by a trainer's loops alone, without a fit."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from mlscale.train.checkpoint.step_boundary import (
    install_boundaries,
    is_accumulating,
    is_in_epoch,
    mark_epoch_ended,
)

HOOKS = ("on_train_batch_end", "on_validation_end", "on_train_epoch_end")


class Noting(ModelCheckpoint):
    """Notes the hooks that reach it, and how many epochs count as ended then."""

    def __init__(self, log: list[Any], **arguments: Any) -> None:
        super().__init__(**arguments)
        for hook in HOOKS:
            setattr(self, hook, lambda trainer, *given, hook=hook: log.append((hook, ended(trainer), *given)))


class Watching(Callback):
    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def on_step_boundary(self, trainer: Any, module: Any) -> None:
        self.log.append(("step", module))

    def on_epoch_boundary(self, trainer: Any, module: Any) -> None:
        self.log.append(("epoch", module))


def ended(trainer: Any) -> tuple[int, int]:
    progress = trainer.fit_loop.epoch_progress
    return progress.current.completed, progress.total.completed


def loop(log: list[Any], name: str, **of: Any) -> Any:
    return SimpleNamespace(on_advance_end=lambda *given: log.append((name, *given)), **of)


def trainer(log: list[Any], *callbacks: Callback, fn: TrainerFn = TrainerFn.FITTING, accumulating: bool = False) -> Any:
    epoch_loop = loop(log, "lightning step", _should_accumulate=lambda: accumulating)
    progress = SimpleNamespace(
        current=SimpleNamespace(ready=3, completed=2), total=SimpleNamespace(ready=9, completed=8)
    )
    fit_loop = loop(log, "lightning epoch", epoch_loop=epoch_loop, epoch_progress=progress)
    fake = SimpleNamespace(
        fit_loop=fit_loop, callbacks=list(callbacks), lightning_module="module",
        state=SimpleNamespace(fn=fn), sanity_checking=False,
    )  # fmt: skip
    install_boundaries(fake)
    return fake


def test_saves_of_a_step_come_after_lightning_and_before_other_callbacks() -> None:
    log: list[Any] = []
    saving = Noting(log, every_n_train_steps=1)
    fake = trainer(log, Watching(log), saving)
    saving.on_train_batch_end(fake, "batch")  # type: ignore[call-arg, arg-type]
    saving.on_validation_end(fake, "module")  # type: ignore[arg-type]
    assert log == []
    fake.fit_loop.epoch_loop.on_advance_end("given")
    assert log == [
        ("lightning step", "given"), ("on_train_batch_end", (2, 8), "batch"), ("on_validation_end", (2, 8), "module"),
        ("step", "module"),
    ]  # fmt: skip
    log.clear()
    fake.fit_loop.epoch_loop.on_advance_end()
    assert log == [("lightning step",), ("step", "module")]


def test_saves_of_an_epoch_count_it_as_the_current_one() -> None:
    log: list[Any] = []
    saving = Noting(log)
    fake = trainer(log, saving, Watching(log))
    saving.on_train_epoch_end(fake, "module")  # type: ignore[arg-type]
    fake.fit_loop.epoch_loop.on_advance_end()
    assert [entry[0] for entry in log] == ["lightning step", "step"]
    log.clear()
    fake.fit_loop.on_advance_end()
    assert log == [("lightning epoch",), ("on_train_epoch_end", (1, 7), "module"), ("epoch", "module")]
    assert ended(fake) == (2, 8)
    assert not hasattr(fake.fit_loop, "_at_epoch_boundary")
    log.clear()
    fake.fit_loop.on_advance_end()
    assert log == [("lightning epoch",), ("epoch", "module")]


def test_in_the_middle_of_accumulation_saves_wait() -> None:
    log: list[Any] = []
    saving = Noting(log, every_n_train_steps=1)
    fake = trainer(log, saving, accumulating=True)
    assert is_accumulating(fake)
    saving.on_train_batch_end(fake)  # type: ignore[call-arg]
    fake.fit_loop.epoch_loop.on_advance_end()
    assert log == [("lightning step",)]
    fake.fit_loop.epoch_loop._should_accumulate = lambda: False
    fake.fit_loop.epoch_loop.on_advance_end()
    assert log[-1] == ("on_train_batch_end", (2, 8))


@pytest.mark.parametrize(
    ("arguments", "deferred"),
    [
        ({"every_n_train_steps": 1}, True), ({"train_time_interval": timedelta(minutes=1)}, True),
        ({"every_n_epochs": 1}, False),
    ],
)  # fmt: skip
def test_a_callback_without_steps_is_left_alone_after_batches(arguments: dict[str, Any], deferred: bool) -> None:
    log: list[Any] = []
    saving = Noting(log, **arguments)
    fake = trainer(log, saving)
    saving.on_train_batch_end(fake)  # type: ignore[call-arg]
    assert (log == []) == deferred


@pytest.mark.parametrize(("fn", "sanity"), [(TrainerFn.VALIDATING, False), (TrainerFn.FITTING, True)])
def test_outside_of_training_nothing_is_deferred(fn: TrainerFn, sanity: bool) -> None:
    log: list[Any] = []
    saving = Noting(log)
    fake = trainer(log, saving, fn=fn)
    fake.sanity_checking = sanity
    saving.on_validation_end(fake, "module")  # type: ignore[arg-type]
    assert log == [("on_validation_end", (2, 8), "module")]


def test_a_save_that_raises_is_not_repeated_and_leaves_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []
    saving = Noting(log)
    monkeypatch.setattr(saving, "on_train_epoch_end", lambda *_: 1 / 0)
    fake = trainer(log, saving)
    saving.on_train_epoch_end(fake, "module")  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        fake.fit_loop.on_advance_end()
    assert ended(fake) == (2, 8)
    fake.fit_loop.on_advance_end()
    assert log == [("lightning epoch",)] * 2


@pytest.mark.parametrize(("ready", "completed", "inside"), [(3, 2, True), (3, 3, False), (0, 0, False)])
def test_an_epoch_has_begun_and_not_ended(ready: int, completed: int, inside: bool) -> None:
    fake = trainer([])
    fake.fit_loop.epoch_progress.current = SimpleNamespace(ready=ready, completed=completed)
    assert is_in_epoch(fake) is inside


@pytest.mark.parametrize("at_boundary", [True, False])
def test_a_checkpoint_of_an_epochs_boundary_has_the_epoch_ended(at_boundary: bool) -> None:
    fake = trainer([])
    if at_boundary:
        fake.fit_loop._at_epoch_boundary = True
    progress = {"current": {"completed": 1}, "total": {"completed": 7}}
    checkpoint = {"epoch": 1, "loops": {"fit_loop": {"epoch_progress": progress}}}
    mark_epoch_ended(fake, checkpoint)
    more = int(at_boundary)
    assert progress == {"current": {"completed": 1 + more}, "total": {"completed": 7 + more}}
    assert checkpoint["epoch"] == 1 + more
