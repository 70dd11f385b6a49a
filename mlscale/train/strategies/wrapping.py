"""The choice of a model's parts that are sharded, or computed again in the backward pass, one at a time.

Activation checkpointing: a block's activations are computed again in the backward pass, and not kept until then.

It needs the memory of one block in place of all of them, and about a third more time (Chen et al. 2016,
arXiv:1604.06174). The result is the same to the last bit: random numbers are drawn again from the same state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mlscale.errors import MLScaleError

_CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
WRAP_MIN_PARAMS = 1_000_000


def choose_modules(
    root: nn.Module, wrap: Sequence[str] | None = None, min_params: int | None = None
) -> dict[str, nn.Module]:
    """Return the modules to wrap, by name, outer ones before those inside them; `root` itself is not among them.

    Args:
        root: the module whose parts are chosen.
        wrap: names of classes; None for the repeated blocks of the model, and where it has none, by size.
        min_params: wrap modules of at least so many parameters, without those of modules inside them that are wrapped;
            with `wrap`, in addition to these classes.

    Raises:
        MLScaleError: no module is of a class in `wrap`.
    """
    # By size alone where a size alone is given.
    chosen = choose_blocks(root, wrap, "strategy.wrap") if wrap or min_params is None else {}
    if not chosen and min_params is None:
        min_params = WRAP_MIN_PARAMS
    if min_params is not None:
        chosen |= _find_large_modules(root, min_params, chosen)
    shared = set(find_shared_parameters(root, chosen))
    order = {name: index for index, (name, _) in enumerate(root.named_modules())}
    return {name: chosen[name] for name in sorted(chosen, key=lambda name: order[name]) if name not in shared}


def choose_blocks(root: nn.Module, wrap: Sequence[str] | None, key: str) -> dict[str, nn.Module]:
    """Return the modules of the classes `wrap`, or without these the model's repeated blocks, by name.

    Args:
        key: the setting that names the classes, for errors.

    Raises:
        MLScaleError: no module is of one of the classes.
    """
    return _find_classes(root, wrap, key) if wrap else _find_repeated_blocks(root)


def count_classes(modules: dict[str, nn.Module]) -> str:
    """Return the classes of modules and how many there are of each, as text: `GPTBlock × 4`."""
    counts = Counter(type(module).__name__.removeprefix("FSDP") for module in modules.values())
    return ", ".join(f"{name} × {count}" for name, count in counts.items())


def find_shared_parameters(root: nn.Module, chosen: dict[str, nn.Module]) -> Iterator[str]:
    """Yield the names of chosen modules that share a parameter with a module outside them, such as tied embeddings.

    A parameter has one place: what shares it is left to a module that holds both.
    """
    for name, module in chosen.items():
        inside = {id(part) for part in module.modules()}
        own = {id(parameter) for parameter in module.parameters()}
        outside = (part for part in root.modules() if id(part) not in inside)
        if any(id(value) in own for part in outside for value in part._parameters.values() if value is not None):
            yield name


def _find_classes(root: nn.Module, wrap: Sequence[str], key: str) -> dict[str, nn.Module]:
    parts = {name: part for name, part in root.named_modules() if name and any(True for _ in part.parameters())}
    chosen = {name: part for name, part in parts.items() if _get_class_names(part) & set(wrap)}
    existing = set().union(*map(_get_class_names, chosen.values()))
    if missing := [name for name in wrap if name not in existing]:
        known = dict.fromkeys(type(part).__name__ for part in parts.values())
        error = MLScaleError(
            f"the model has no module of class {', '.join(missing)}",
            where=key,
            why=f"its classes: {', '.join(known)}",
            fix=f"{key}={'null' if key == 'strategy.wrap' else 'true'}, which chooses the model's repeated blocks",
        )
        error.unbuilt = True
        raise error
    return chosen


def _get_class_names(module: nn.Module) -> set[str]:
    # With the base classes: a user's block is often a subclass of the one that is documented.
    return {kind.__name__ for kind in type(module).__mro__ if issubclass(kind, nn.Module) and kind is not nn.Module}


def _find_repeated_blocks(root: nn.Module) -> dict[str, nn.Module]:
    """Return the outermost blocks: modules with modules inside, two or more of one class next to each other."""
    chosen: dict[str, nn.Module] = {}
    for path, container in root.named_modules():
        if not isinstance(container, _CONTAINERS) or any(path.startswith(f"{name}.") for name in chosen):
            continue
        blocks = {name: part for name, part in container.named_children() if _is_block(part)}
        repeated = Counter(type(part) for part in blocks.values())
        prefix = f"{path}." if path else ""
        chosen |= {f"{prefix}{name}": part for name, part in blocks.items() if repeated[type(part)] > 1}
    return chosen


def _is_block(module: nn.Module) -> bool:
    # A container has no forward pass that hooks could be on, or one of which the user thinks as several modules.
    has_parts = any(True for _ in module.children())
    return has_parts and not isinstance(module, _CONTAINERS) and any(True for _ in module.parameters())


def _find_large_modules(root: nn.Module, least: int, chosen: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Return modules whose parameters, without those of wrapped modules inside, are `least` or more."""
    large: dict[str, nn.Module] = {}
    taken = {id(value) for module in chosen.values() for value in module.parameters()}
    # From the inside out: a large part is wrapped before what is around it.
    for name, module in reversed(list(root.named_modules())):
        own = {id(value): value.numel() for value in module.parameters() if id(value) not in taken}
        # A list or a dictionary of modules is never called, so nothing would gather its parameters.
        if name and sum(own.values()) >= least and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            large[name] = module
            taken |= set(own)
    return large


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
