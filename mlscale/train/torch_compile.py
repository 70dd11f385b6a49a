"""torch.compile of a task's model, and how precisely float32 is multiplied on CUDA.

Names of weights that are the same whether or not a part of the model is compiled.

`torch.compile(module)` wraps the module, and its weights are then called `_orig_mod.<name>`: saved that way they fit no
model that is not compiled at the same places. Here that word is left out when weights are saved, and put where
the present model needs it when they are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn


class Compile(Callback):
    """A callback that compiles `module.model` before the first step, when shapes are known and weights are loaded.

    It is done in place: names of weights, hooks and `isinstance` stay, and a copy of the model is not compiled. torch
    skips its own containers when they are compiled in place (a bare `nn.Sequential`); such a model is wrapped, and
    `compiled_names.py` keeps the names of its weights.

    Args:
        mode: torch.compile's; None for its default.
    """

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        compile_model(pl_module, self.mode)


def compile_model(task: Any, mode: str | None = None) -> None:
    """Let the model of `task` be compiled at its next call."""
    model: nn.Module = task.model
    # torch's own containers have to be wrapped, see `Compile`.
    if type(model).__module__.startswith("torch.nn."):
        task.model = torch.compile(model, mode=mode)
    else:
        model.compile(mode=mode)


def set_tf32(allowed: bool | None) -> None:
    """Set whether float32 matrix products and convolutions on CUDA may round inputs to TF32 (10 bits of mantissa).

    Args:
        allowed: None leaves torch's own choice: convolutions may, matrix products may not.
    """
    if allowed is not None:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


_WRAPPED = "_orig_mod"
_WORD = _WRAPPED + "."


def use_uncompiled_names(module: nn.Module) -> None:
    """Let `module.state_dict()` and `load_state_dict()` use the names of the uncompiled model. Parts may be compiled
    later."""
    module.register_state_dict_post_hook(_strip_wrapper_names)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(_match_wrapper_names)  # type: ignore[no-untyped-call]


def _strip_wrapper_names(module: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    if any(_WORD in name for name in state):
        _rename_keys(state, prefix, get_uncompiled_name)
        if (metadata := getattr(state, "_metadata", None)) is not None:  # the versions of the modules' formats
            for name in [name for name in metadata if _WRAPPED in name]:
                metadata[get_uncompiled_name(name + ".").removesuffix(".")] = metadata.pop(name)


def _match_wrapper_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    # Outer ones come first: named_modules goes from the root.
    wrapped = [name for name, _ in module.named_modules() if name.rpartition(".")[2] == _WRAPPED]
    if wrapped or any(_WORD in name for name in state):
        _rename_keys(state, prefix, lambda name: _add_wrapper_names(get_uncompiled_name(name), wrapped))


def get_uncompiled_name(name: str) -> str:
    """Return the name of a weight in the uncompiled model."""
    return name.replace(_WORD, "")


def _add_wrapper_names(name: str, wrapped: Iterable[str]) -> str:
    for path in wrapped:
        above = path.removesuffix(_WRAPPED)
        if name.startswith(above):
            name = above + _WORD + name.removeprefix(above)
    return name


def _rename_keys(state: dict[str, Any], prefix: str, new: Callable[[str], str]) -> None:
    """Rename in place the keys below `prefix`, in their order."""
    items = list(state.items())
    # In place: torch's hooks are given the dictionary and can't replace it. Its order stays.
    state.clear()
    state.update(
        {prefix + new(name.removeprefix(prefix)) if name.startswith(prefix) else name: value for name, value in items}
    )
