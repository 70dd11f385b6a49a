"""Contracts with Lightning's private parts: each test fails when what a patch stands on has moved."""

import inspect
import signal
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.profilers import SimpleProfiler
from pytorch_lightning.trainer import call
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector

from mlscale.train.lightning import patches as lightning_patches
from mlscale.train.lightning.patches import ShortSteps
from mlscale.train.trainer_patches import apply_trainer_patches
from tests.unit.fitting import At, Loader, batches, classifier, fit, trainer


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_lightning_installs_its_handlers_and_broadcasts_where_we_think() -> None:
    assert "register_signal_handlers()" in inspect.getsource(pl.Trainer._run)
    assert parameters(_SignalConnector.register_signal_handlers) == ["self"]
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(_TrainingEpochLoop.advance)
    assert parameters(_TrainingEpochLoop._broadcast_sigterm_tensor) == ["self"]


def test_our_signal_handlers_stay_during_a_fit() -> None:
    def ours(signum: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, ours)
    try:
        seen: list[Any] = []
        run = trainer(callbacks=[At(lambda *_: seen.append(signal.getsignal(signal.SIGTERM)))])
        apply_trainer_patches(run)
        fit(run, classifier(), batches(1))
        assert seen == [ours]
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_profiler_that_was_asked_for_stays() -> None:
    asked = trainer(profiler=SimpleProfiler())
    apply_trainer_patches(asked)
    assert isinstance(asked.profiler, SimpleProfiler)  # type: ignore[attr-defined]


def test_lightning_skips_hooks_that_are_not_callable() -> None:
    for function in (call._call_callback_hooks, call._call_lightning_module_hook):
        assert "callable(fn)" in inspect.getsource(function)
    for hook in lightning_patches._STEP_HOOKS:
        assert hasattr(pl.Callback, hook)
        assert hasattr(pl.LightningModule, hook)


def test_the_private_method_that_is_replaced_has_the_same_arguments() -> None:
    assert parameters(_TrainingEpochLoop._build_kwargs) == ["self", "kwargs", "batch", "batch_idx"]


class Overrides(pl.Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.calls.append("on_before_zero_grad")


def test_overridden_hooks_are_still_called_and_the_rest_comes_back() -> None:
    callback, task = Overrides(), classifier()
    held: list[tuple[Any, bool]] = []

    def look(run: Any, module: Any, index: int) -> None:
        held.append((callback.on_after_backward, "on_after_backward" in vars(module)))

    run = trainer(callbacks=[callback, At(look)])
    apply_trainer_patches(run)
    fit(run, task, batches(2))
    assert callback.calls == ["on_before_zero_grad"] * 2
    assert held == [(None, True)] * 2
    assert callable(callback.on_after_backward)
    assert not {"on_after_backward", "on_train_batch_start"} & vars(task).keys()


def test_everything_comes_back_after_an_error() -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    task = classifier()
    run = trainer(callbacks=[At(fail)])
    apply_trainer_patches(run)
    with pytest.raises(ZeroDivisionError):
        fit(run, task, batches(1))
    assert "on_after_backward" not in vars(task)


class NoIndex(pl.LightningModule):
    """A user's module: no batch index, hooks of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.moved = 0

    def training_step(self, batch: Any) -> torch.Tensor:
        return self.layer(batch["x"]).sum()  # type: ignore[no-any-return]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.moved += 1
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_users_signature_and_transfer_hooks_are_kept() -> None:
    module, run = NoIndex(), trainer()
    apply_trainer_patches(run)
    run.fit(module, Loader(batches(2)))
    assert module.moved == 2


def test_weights_are_the_same_with_and_without_the_patches() -> None:
    def weights(patched: bool) -> torch.Tensor:
        task, run = classifier(), trainer(max_epochs=2, gradient_clip_val=0.1)
        if patched:
            apply_trainer_patches(run)
        fit(run, task, batches(4))
        return task.model.get_parameter("weight")

    assert torch.equal(weights(True), weights(False))


def test_short_steps_come_first_so_that_it_sees_all_callbacks() -> None:
    run = trainer(callbacks=[Overrides()])
    apply_trainer_patches(run)
    assert isinstance(run.callbacks[0], ShortSteps)  # type: ignore[attr-defined]
