"""Activation checkpointing: a block's activations are computed again in the backward pass, and not kept until then.

It needs the memory of one block in place of all of them, and about a third more time (Chen et al. 2016,
arXiv:1604.06174). The result is the same to the last bit: random numbers are drawn again from the same state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mlscale.errors import MLScaleError
from mlscale.train.strategies.wrapping import choose_blocks


def checkpoint_activations(root: nn.Module, wrap: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Let the blocks of `root` compute their activations again; returns these blocks, by name.

    Args:
        root: the module; changed in place. Names of weights, classes of modules and hooks stay.
        wrap: names of classes; None for the model's repeated blocks.

    Raises:
        MLScaleError: there are none.
    """
    blocks = choose_blocks(root, wrap, "activation_checkpointing")
    # A block inside another one would be computed twice more.
    outer = {name: block for name, block in blocks.items() if not any(_is_inside(name, other) for other in blocks)}
    if not outer:
        classes = dict.fromkeys(type(part).__name__ for part in root.modules() if any(True for _ in part.children()))
        raise MLScaleError(
            "the model has no repeated blocks whose activations could be computed again",
            where="activation_checkpointing",
            why=f"its modules that hold others: {', '.join(classes)}",
            fix="activation_checkpointing=false\nactivation_checkpointing=[<classes of modules>]",
        )
    for block in outer.values():
        if not isinstance(block.__dict__.get("forward"), RecomputedForward):
            # On the instance: a wrapper module would change the names of weights, and what `isinstance` returns.
            block.forward = RecomputedForward(block)
    return outer


class RecomputedForward:
    """The forward pass of a module, without keeping its activations.

    A copy of the module has a copy of this object, which belongs to the copy.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._own = module.__dict__.get("forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self._own or type(self._module).forward.__get__(self._module)
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=self._create_contexts, **kwargs)

    def _create_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _keep_buffers(self._module)


@contextmanager
def _keep_buffers(module: nn.Module) -> Iterator[None]:
    """Put a module's buffers back after this block: a second forward pass would count a batch twice in BatchNorm."""
    before = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _is_inside(name: str, other: str) -> bool:
    return name.startswith(f"{other}.")
