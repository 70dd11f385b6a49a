"""The layers of a model from its input to its head, for gradual unfreezing and layer-wise learning rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

_STACKS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def list_layers(module: nn.Module) -> list[list[str]]:
    """Return the names of a module's parameters, layer by layer, in the order in which its parts were made; the last
    layer is the head. Every parameter is in one layer.

    A layer is a block of a stack (modules of one class, with parts of their own, two at least in a Sequential or a
    ModuleList), or a module next to blocks. A parameter outside of these, such as a class token or an embedding of
    positions, is in the first layer, as in BEiT (Bao et al. 2021, arXiv:2106.08254). A normalisation belongs to the
    layer before it. A module without stacks is divided into its children.
    """
    layers = list(_iterate_layers(module, ""))
    loose = _list_loose_parameters(module, "")
    if loose and layers:
        layers[0] = [*loose, *layers[0]]
    return layers or ([loose] if loose else [])


def _iterate_layers(module: nn.Module, prefix: str) -> Iterator[list[str]]:
    layers: list[list[str]] = []
    for path, part in _iterate_parts(module, prefix):
        names = [f"{path}.{name}" for name, _ in part.named_parameters()]
        if not names:
            continue
        # By the class's name: libraries have norms of their own. It trains with the layer whose output it scales.
        if layers and "norm" in type(part).__name__.lower() and not list(part.children()):
            layers[-1] += names
        else:
            layers.append(names)
    yield from layers


def _iterate_parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts that a module is divided into, with their paths."""
    children = [(f"{prefix}{name}", child) for name, child in module.named_children() if _has_parameters(child)]
    apart = len(children) == 1 and bool(list(children[0][1].children()))
    # A single child with children is merely wrapped by its parent: the layers are inside.
    for path, child in children:
        if apart or _has_stack(child):
            yield from _iterate_parts(child, f"{path}.")
        else:
            yield path, child


def _list_loose_parameters(module: nn.Module, prefix: str) -> list[str]:
    """Return the names of the parameters of modules that are themselves divided."""
    names = [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)]
    children = [(name, child) for name, child in module.named_children() if _has_parameters(child)]
    apart = len(children) == 1 and bool(list(children[0][1].children()))
    for name, child in children:
        if apart or _has_stack(child):
            names += _list_loose_parameters(child, f"{prefix}{name}.")
    return names


def _has_stack(module: nn.Module) -> bool:
    return any(_is_stack(part) for part in module.modules())


def _is_stack(module: nn.Module) -> bool:
    if not isinstance(module, _STACKS):
        return False
    blocks = [child for child in module.children() if list(child.children()) and not isinstance(child, _STACKS)]
    # Two blocks of one class make a stack: a Sequential of different layers is not one.
    kinds = Counter(type(block) for block in blocks if _has_parameters(block))
    return any(count > 1 for count in kinds.values())


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
