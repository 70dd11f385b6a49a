"""Changes to Lightning's private parts; each has a contract test that fails when these parts move.

All changes are to one trainer's objects, and are undone when a fit ends: other trainers stay as Lightning made them.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature

from mlscale.train.lightning.trainer_parts import get_callbacks

_STEP_HOOKS = (  # of callbacks and of modules, called at every training step
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
_NOTHING = nullcontext()


def disable_signal_handling(trainer: Trainer) -> None:
    """Switch off Lightning's handling of SIGTERM, which `graceful_stop.py` replaces: its handler runs a collective,
    which can hang, and its epoch loop broadcasts at every step to inform the ranks."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]  # for this trainer alone
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]  # for this trainer alone


def skip_profiler(trainer: Trainer) -> None:
    """Replace the profiler where nothing is profiled: Lightning enters its context manager some sixty times a step."""
    # The exact class: a user's subclass may measure something.
    if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]  # set by a connector
        trainer.profiler = _NoProfiler()  # type: ignore[attr-defined]


def hold_schedule(trainer: Trainer, held: Callable[[], bool]) -> None:
    """Hold the schedules that go by steps while `held` returns True.

    Lightning steps them even where a loss scaler has skipped the optimizer's step: the rate falls while nothing is
    learnt, and torch warns of a schedule that is ahead of its optimizer.
    """
    loop = trainer.fit_loop.epoch_loop
    # From the class: a second fit must not wrap the function of the first.
    update = type(loop).update_lr_schedulers

    def update_lr_schedulers(interval: str, update_plateau_schedulers: bool) -> None:
        if interval != "step" or not held():
            update(loop, interval, update_plateau_schedulers)

    loop.update_lr_schedulers = update_lr_schedulers  # type: ignore[method-assign]  # for this trainer alone


class _NoProfiler(PassThroughProfiler):
    """A profiler without cost: no generator is created and resumed around each hook."""

    def profile(self, action_name: str) -> Any:
        return _NOTHING


class ShortSteps(Callback):
    """A callback that removes from the training step, while a fit runs, hooks and checks without an effect in it."""

    def __init__(self) -> None:
        self._set: list[tuple[Any, str]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._skip_empty_hooks(trainer, pl_module)
        self._inspect_signature_once(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore_attributes()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_attributes()

    def _skip_empty_hooks(self, trainer: Trainer, module: LightningModule) -> None:
        """Set hooks that are not overridden to None: Lightning calls every hook of the module and of each callback, but
        skips what is not callable."""
        owners = [(module, LightningModule), *((callback, Callback) for callback in get_callbacks(trainer))]
        for owner, base in owners:
            for hook in _STEP_HOOKS:
                if not is_overridden(hook, owner, base):
                    self._set_attribute(owner, hook, None)

    def _inspect_signature_once(self, trainer: Trainer, module: LightningModule) -> None:
        """Check once whether `training_step` takes a batch index: Lightning inspects its signature at every step."""
        takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)

        def build_kwargs(kwargs: OrderedDict[str, Any], batch: object, batch_idx: int) -> OrderedDict[str, Any]:
            kwargs["batch"] = batch
            if takes_index:
                kwargs["batch_idx"] = batch_idx
            return kwargs

        self._set_attribute(trainer.fit_loop.epoch_loop, "_build_kwargs", build_kwargs)

    def _set_attribute(self, owner: object, name: str, value: object) -> None:
        if name not in vars(owner):  # an attribute that the user has set stays
            object.__setattr__(owner, name, value)  # not nn.Module's, which checks for parameters
            self._set.append((owner, name))

    def _restore_attributes(self) -> None:
        for owner, name in self._set:
            object.__delattr__(owner, name)
        self._set.clear()
