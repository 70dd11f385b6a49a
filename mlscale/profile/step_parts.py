"""Attribute the time of a run to its parts: compute, each callback, each logger, checkpoints, validation.

Only actions that Lightning times as forward, backward, optimizer or gradient work are called compute. Actions nest; the
time of an inner one is subtracted from the outer one, so that parts add up to the whole.
"""

from __future__ import annotations

import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.profilers import Profiler
from torch.nn.parallel import DistributedDataParallel

from mlscale.estimate.time_probe import count_loader_batches
from mlscale.train.lightning.trainer_parts import get_callbacks

COMPUTE, WAIT, TRANSFER, LOOP = "computing", "wait for data", "transfer to the device", "Lightning's loop"
CHECKPOINT, VALIDATION = "checkpoints", "validation"
RANKS, EXCHANGE = "wait for other ranks", "exchange of gradients"

_EPOCH, _STEP = "run_training_epoch", "run_training_batch"
_COMPUTE_HOOKS = frozenset(
    {
        "training_step",
        "backward",
        "manual_backward",
        "optimizer_step",
        "optimizer_zero_grad",
        "configure_gradient_clipping",
        "lr_scheduler_step",
    }
)
_ENCLOSING_PARTS = (CHECKPOINT, VALIDATION)  # all actions inside of these belong to them


@dataclass
class PartTimes:
    """The seconds of one fit after its warm-up, by part.

    Attributes:
        steps: training batches that were timed.
        epochs: ends of an epoch that were timed.
        of_steps: seconds of all steps.
        of_epochs: seconds of all ends of epochs, including saves after a validation.
        validation_batches: number of validated batches.
        epoch_batches, validation_length: batches of one epoch and of one validation without limits, where loaders know.
        warm_up: training batches before those that were timed.
    """

    steps: int = 0
    epochs: int = 0
    of_steps: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    of_epochs: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    validation_batches: int = 0
    epoch_batches: int | None = None
    validation_length: int | None = None
    warm_up: int = 0

    def compute_shares(
        self, steps_per_epoch: int | None, validation_batches: float | None, validations: float = 1
    ) -> dict[str, float]:
        """Return each part's share of the time of an epoch of the run, the largest first.

        Args:
            steps_per_epoch: batches of one process; None where unknown: then steps alone are counted.
            validation_batches: of one process, per training epoch; None where unknown: then validation is left out.
            validations: per training epoch, each of which may be followed by a checkpoint.
        """
        # The fit is shorter than an epoch of the run: each part is scaled by how often the run has it, steps by the
        # epoch's length, ends of epochs once, validation by its batches.
        seconds: dict[str, float] = defaultdict(float)
        for part, spent in self.of_steps.items():
            if part != VALIDATION:
                seconds[part] += spent / self.steps * (steps_per_epoch or 1)
        if steps_per_epoch:
            for part, spent in self.of_epochs.items():
                if part != VALIDATION:
                    seconds[part] += spent / max(1, self.epochs) * (max(1, validations) if part == CHECKPOINT else 1)
            if validation_batches and self.validation_batches:
                spent = self.of_steps.get(VALIDATION, 0.0) + self.of_epochs.get(VALIDATION, 0.0)
                seconds[VALIDATION] += spent / self.validation_batches * validation_batches
        whole = sum(seconds.values())
        shares = {part: spent / whole for part, spent in seconds.items() if spent}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


class PartTimer(Profiler):
    """A Lightning profiler (`trainer.profiler`) that counts each moment for one part, and writes a JSON file.

    It needs `NamedParts` among the callbacks: Lightning times neither loggers nor a validation as a whole. On a CUDA
    device it waits for the end of compute, or its time would appear where the host waits next; not tested on a device.

    With several ranks each meets the others before and after its backward pass, so that what it waits there is no
    computing; `NamedParts` has switched off DDP's own exchange, in which it would wait unseen.

    Args:
        path: the JSON file of the first rank, which each writes at the end of a fit; others add their number.
        warm_up: steps that are not counted, at least one.
    """

    def __init__(self, path: str, warm_up: int) -> None:
        super().__init__()
        self._path = Path(path)
        self._warm_up = max(1, warm_up)
        self._timed = PartTimes()
        self._stack: list[tuple[str, str]] = []
        self._since = time.perf_counter()
        self._in_epoch = False
        self._after_validation = False
        self._written = False
        self.lengths: tuple[int | None, int | None] = (None, None)
        self.exchange: Callable[[], object] | None = None

    def start(self, action_name: str) -> None:
        self._charge_time()
        part = classify_action(action_name)
        if part == COMPUTE and action_name.endswith((".training_step", ".backward")):
            self._meet_ranks()
        # A checkpoint that is saved within a validation is still a checkpoint.
        if self._stack and self._stack[-1][1] in _ENCLOSING_PARTS and part != CHECKPOINT:
            part = self._stack[-1][1]
        self._stack.append((action_name, part))
        if action_name == _EPOCH:
            self._in_epoch = True
        elif part == WAIT:
            # The request for the next batch ends the work that follows a validation within an epoch.
            self._after_validation = False

    def stop(self, action_name: str) -> None:
        if self._stack and self._stack[-1][1] == COMPUTE and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        self._charge_time()
        if self._stack and self._stack[-1] == (action_name, COMPUTE) and action_name.endswith(".backward"):
            self._meet_ranks()
            if self.exchange is not None:
                self.exchange()
                self._charge_time(EXCHANGE)
        while self._stack and self._stack.pop()[0] != action_name:
            pass  # an exception left inner actions open
        if action_name == _EPOCH:
            self._in_epoch = False
            self._timed.epochs += 1
        elif action_name == VALIDATION:
            self._after_validation = True
        elif action_name.endswith(".validation_step"):
            self._timed.validation_batches += 1
        elif action_name == _STEP:
            self._count_step()

    def teardown(self, stage: str | None) -> None:
        if stage == "fit" and not self._written and self._path.parent.is_dir():
            # Lightning calls this again when the profiler is garbage-collected: a failed fit's folder is gone by then.
            get_rank_path(self._path, self._local_rank or 0).write_text(json.dumps(vars(self._timed)))
            self._written = True
        super().teardown(stage)

    def _meet_ranks(self) -> None:
        """Wait for all ranks, as a part of its own."""
        if dist.is_initialized():
            self._charge_time()
            dist.barrier()
            self._charge_time(RANKS)

    def _charge_time(self, part: str | None = None) -> None:
        now = time.perf_counter()
        part = part or (self._stack[-1][1] if self._stack else LOOP)
        steps = self._in_epoch and not self._after_validation
        (self._timed.of_steps if steps else self._timed.of_epochs)[part] += now - self._since
        self._since = now

    def _count_step(self) -> None:
        if self._warm_up > 0:
            self._warm_up -= 1
            self._timed.warm_up += 1
            if not self._warm_up:  # the step that ends here is part of the warm-up, too
                self._timed = PartTimes(
                    warm_up=self._timed.warm_up, epoch_batches=self.lengths[0], validation_length=self.lengths[1]
                )
        else:
            self._timed.steps += 1


@functools.cache
def classify_action(action: str) -> str:
    """Return the part that an action of Lightning's profiler belongs to.

    `[Callback]EarlyStopping{…}.on_train_batch_end` is `callback EarlyStopping`.
    """
    kind, _, rest = action.partition("]") if action.startswith("[") else ("", "", action)
    state_key, _, hook = rest.rpartition(".")
    owner = state_key.split("{", 1)[0].rsplit(".", 1)[-1]  # a state key may hold arguments, and a nested class's path
    if hook == "train_dataloader_next":
        return WAIT
    if hook == "save_checkpoint":
        return CHECKPOINT
    if VALIDATION in hook or hook.startswith("val_"):
        return VALIDATION
    if hook in _COMPUTE_HOOKS and kind in ("[Strategy", "[LightningModule"):
        return COMPUTE
    if hook in ("batch_to_device", "transfer_batch_to_device"):
        return TRANSFER
    if kind == "[Callback":
        return f"callback {owner}"
    if kind == "[Logger":
        return f"logger {owner}"
    if kind in ("[LightningModule", "[LightningDataModule"):
        return f"{owner}.{hook}"
    return LOOP


class NamedParts(Callback):
    """A callback that makes a profiler time what Lightning does not: each logger, boundaries, a whole validation."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # When training starts, so that all loggers and callbacks exist.
        profiler: Any = trainer.profiler  # type: ignore[attr-defined]  # set by a connector
        loaders = (trainer.train_dataloader, trainer.val_dataloaders)
        profiler.lengths = tuple(map(count_loader_batches, loaders))
        model: Any = trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.require_forward_param_sync = False
            gradients = torch.zeros(sum(value.numel() for value in model.parameters() if value.requires_grad))
            gradients = gradients.to(trainer.strategy.root_device)
            profiler.exchange = lambda: dist.all_reduce(gradients)
        for logger in trainer.loggers:
            for method in ("log_metrics", "save"):
                _time_method(profiler, logger, method, f"[Logger]{type(logger).__name__}.{method}")
        for callback in get_callbacks(trainer):
            for method in ("on_step_boundary", "on_epoch_boundary"):
                if hasattr(callback, method):
                    _time_method(profiler, callback, method, f"[Callback]{type(callback).__name__}.{method}")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        model: Any = trainer.strategy.model
        # Before each step: after one of manual optimization Lightning switches it on.
        if isinstance(model, DistributedDataParallel):
            model.require_backward_grad_sync = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.profiler.start(VALIDATION)  # type: ignore[attr-defined]  # set by a connector

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.profiler.stop(VALIDATION)  # type: ignore[attr-defined]  # set by a connector


def _time_method(profiler: Profiler, owner: object, method: str, action: str) -> None:
    original = getattr(owner, method)

    # An attribute of the instance hides the class's method.
    def run_timed(*arguments: object, **named: object) -> Any:
        with profiler.profile(action):
            return original(*arguments, **named)

    setattr(owner, method, run_timed)


def get_rank_path(path: Path, rank: int) -> Path:
    """Return the path of a rank's file."""
    return path.with_name(f"{path.name}.{rank}") if rank else path


def read_part_times(path: Path) -> PartTimes:
    """Return the times that a timer has written."""
    return PartTimes(**json.loads(path.read_text()))
