"""What must be changed in Lightning's private parts; each change has a contract test that fails when they move.

Everything is done to one trainer's objects: other trainers in the process stay as Lightning made them.
"""

from contextlib import nullcontext
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.profilers import PassThroughProfiler

_STEP_HOOKS = (  # of callbacks and of modules, called at every training step
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
_NOTHING = nullcontext()


def apply(trainer: Any) -> None:
    """Prepare a `pytorch_lightning.Trainer`; call before fit. (Its attributes are set in other files: it has no type.)"""
    leave_signals_alone(trainer)
    skip_profiler(trainer)
    skip_empty_hooks(trainer)


def leave_signals_alone(trainer: Any) -> None:
    """Lightning's SIGTERM handler runs a collective inside the handler, which can hang, and its epoch loop broadcasts
    at every step to tell the ranks about it. `signals.py` replaces both."""
    trainer._signal_connector.register_signal_handlers = lambda: None
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


class _NoProfiler(PassThroughProfiler):
    """A profiler that is not there: no generator is made and resumed around each hook."""

    def profile(self, action_name: str) -> Any:
        return _NOTHING


def skip_profiler(trainer: Any) -> None:
    """Lightning enters a context manager around some sixty hooks a step, even when nothing is profiled."""
    if type(trainer.profiler) is PassThroughProfiler:
        trainer.profiler = _NoProfiler()


def skip_empty_hooks(trainer: Any) -> None:
    """Lightning calls every step hook of the module and of each callback, overridden or not, but skips what is not
    callable: so the empty ones are set to None, on these objects alone."""
    trainer.callbacks.insert(0, _SkipEmptyHooks())


class _SkipEmptyHooks(Callback):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for callback in getattr(trainer, "callbacks"):  # noqa: B009 - set where a type checker does not see it
            _drop(callback, Callback)
        _drop(pl_module, LightningModule)


def _drop(target: Any, base: type) -> None:
    for hook in _STEP_HOOKS:
        if hook not in vars(target) and getattr(type(target), hook) is getattr(base, hook):
            object.__setattr__(target, hook, None)
