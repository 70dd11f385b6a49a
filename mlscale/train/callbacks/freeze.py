"""Freezing of parameters: a part of a model is trained first, the rest later, all at once or layer by layer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from tqdm import tqdm

from mlscale.errors import MLScaleError
from mlscale.report.text import format_percent
from mlscale.tasks.models.layers import list_layers
from mlscale.train.torch_compile import get_uncompiled_name


class Freeze(Callback):
    """A callback that freezes parameters at the start of a fit, and unfreezes them later, at once or layer by layer.

    A frozen parameter has no gradient, so that no optimizer touches it, not by weight decay either; it stays in the
    optimizer's groups. What is frozen follows from the epoch and the step alone: a run that is killed and resumed is
    the same as an uninterrupted one. With several processes the strategy searches for unused parameters
    (see `leaves_unused`).

    Layer by layer, from the head down, is the gradual unfreezing of ULMFiT (Howard and Ruder 2018, arXiv:1801.06146).

    Args:
        modules: patterns of parameters' names (`model.stem.*`), in small or capital letters; None for all but the head,
            which is the model's last layer.
        until_epoch: the epoch, counted from 0, that begins with the first of them unfrozen; None for never.
        until_step: the optimizer step, in place of the epoch.
        every: epochs (or steps, with `until_step`) between two layers; 0 unfreezes all at once.
        norms: let BatchNorm layers whose parameters are frozen keep their running mean and variance, too.
    """

    leaves_unused = True
    """True: steps leave parameters without gradients, and DistributedDataParallel must search for them."""

    def __init__(
        self,
        modules: Sequence[str] | None = None,
        until_epoch: int | None = 1,
        until_step: int | None = None,
        every: int = 0,
        norms: bool = True,
    ) -> None:
        if until_epoch is not None and until_step is not None:
            raise MLScaleError(
                "two ends of a freeze are given",
                where=f"callbacks.freeze: until_epoch={until_epoch}, until_step={until_step}",
                fix="callbacks.freeze.until_epoch=null",
            )
        if min(until_epoch or 0, until_step or 0, every) < 0:
            raise MLScaleError(
                "a freeze ends at a whole number, 0 or more",
                where="callbacks.freeze",
                fix="callbacks.freeze.until_epoch=1",
            )
        self.modules, self.until, self.by_step = modules, until_step, until_step is not None
        if not self.by_step:
            self.until = until_epoch
        self.every, self.norms = every, norms
        self._layers: list[list[str]] = []  # names to freeze, the first layer to be unfrozen first
        self._all: set[str] = set()
        self._unfrozen = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the parameters to freeze.

        Raises:
            MLScaleError: a pattern matches nothing, or nothing would be trained, or nothing frozen.
        """
        if stage != "fit":
            return
        # Parameters that the module itself froze are left alone: they are not unfrozen later either.
        trained = [name for name, parameter in _list_parameters(pl_module) if parameter.requires_grad]
        layers = [
            [name for name in map(get_uncompiled_name, layer) if name in trained] for layer in list_layers(pl_module)
        ]
        frozen = (
            set(trained) - set(layers[-1] if layers else ())
            if self.modules is None
            else self._select_parameters(trained)
        )
        self._layers = [
            remaining for layer in reversed(layers) if (remaining := [name for name in layer if name in frozen])
        ]
        self._all = set(trained)
        if self._all == frozen and self.until is None:
            raise _build_freeze_error(
                "every parameter is frozen, for good", "nothing would be trained", "until_epoch=1"
            )
        if not frozen:
            raise _build_freeze_error("nothing is frozen", "the model has one layer", "modules=[<pattern>]")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Applied in full once: a resumed fit starts with the layers unfrozen that were so before.
        self._unfrozen = -1
        self._apply_freeze(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply_freeze(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if self.by_step and self._unfrozen < len(self._layers):
            self._apply_freeze(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make every parameter trainable again that was so before the fit."""
        for name, parameter in _list_parameters(pl_module):
            if name in self._all:
                parameter.requires_grad_(True)

    def count_unfrozen_layers(self, now: int) -> int:
        """Return how many layers, the head's side first, are unfrozen at the epoch or the step `now`."""
        if self.until is None or now < self.until:
            return 0
        return len(self._layers) if not self.every else min(len(self._layers), 1 + (now - self.until) // self.every)

    def _apply_freeze(self, trainer: Trainer, module: LightningModule) -> None:
        count = self.count_unfrozen_layers(trainer.global_step if self.by_step else trainer.current_epoch)
        if count == self._unfrozen:
            return
        first, self._unfrozen = self._unfrozen < 0, count
        frozen = {name for layer in self._layers[count:] for name in layer}
        for name, parameter in _list_parameters(module):
            if name in self._all:
                parameter.requires_grad_(name not in frozen)
                if name in frozen:
                    # Optimizers skip a gradient of None; zeros would still apply weight decay and momentum.
                    parameter.grad = None
        for path, part in module.named_modules():
            if self.norms and isinstance(part, _NormBase):
                _freeze_statistics(part, get_uncompiled_name(path), frozen, training=module.training)
        if trainer.is_global_zero:
            _print_line(self._format_freeze_line(module, frozen, first=first))

    def _format_freeze_line(self, module: nn.Module, frozen: set[str], *, first: bool) -> str:
        values = {name: parameter.numel() for name, parameter in _list_parameters(module)}
        share = sum(values[name] for name in frozen) / max(1, sum(values.values()))
        if not frozen:
            return "unfrozen  every parameter is trained" + ("" if self.until else " from the start")
        unit = "step" if self.by_step else "epoch"
        more = f", then a layer every {self.every} {unit}{'s' * (self.every != 1)}" if self.every else ""
        until = f"until {unit} {self.until}{more}" if self.until is not None else "for good"
        word = f"frozen    {len(frozen)} of {len(values)} tensors, {format_percent(share, 1)} of the values"
        return f"{word}, {until}" if first else f"{word} still"

    def _select_parameters(self, names: Sequence[str]) -> set[str]:
        selected: set[str] = set()
        for pattern in self.modules or ():
            matched = {
                name
                for name in names
                if fnmatchcase(name.lower(), pattern.lower()) or name.lower().startswith(f"{pattern.lower()}.")
            }
            if not matched:
                known_modules = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in names))
                raise _build_freeze_error(
                    f"no parameter is called '{pattern}'", f"there are: {known_modules[:300]}", f"modules=[{names[0]}]"
                )
            selected |= matched
        return selected


def _list_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters under their uncompiled names: the model may be compiled after `setup`."""
    return [(get_uncompiled_name(name), parameter) for name, parameter in module.named_parameters()]


def _freeze_statistics(norm: nn.Module, path: str, frozen: set[str], *, training: bool) -> None:
    """Put a normalisation whose parameters are all frozen into eval mode, which keeps its running mean and variance."""
    own = {f"{path}.{name}" for name, _ in norm.named_parameters(recurse=False)}
    if own:
        # `requires_grad` alone does not do it: in training mode the running statistics change without a gradient.
        norm.train(training and not own <= frozen)


def _build_freeze_error(what: str, why: str, fix: str) -> MLScaleError:
    error = MLScaleError(what, where="callbacks.freeze", why=why, fix=f"callbacks.freeze.{fix}")
    error.unbuilt = True  # nothing has run yet
    return error


def _print_line(line: str) -> None:
    tqdm.write(line, file=sys.stderr)  # above a progress bar
    sys.stderr.flush()
