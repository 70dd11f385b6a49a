"""Batches: the dict of the built-in data modules, or the pair that most other loaders yield."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from mlscale.errors import MLScaleError


class Batch(NamedTuple):
    """A labelled batch of n samples.

    Attributes:
        x: the inputs, (n, …).
        y: the labels, int64 (n,).
        weight: float (n,); 0 for a sample that does not count (padding, or one that could not be
            read). None: all count.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None


def unpack_batch(batch: object) -> Batch:
    """Return a batch of ``{"x", "y", "weight"?}`` or ``(x, y)`` as a `Batch`.

    Raises:
        MLScaleError: the batch is anything else.
    """
    if isinstance(batch, Mapping) and "x" in batch and "y" in batch:
        return Batch(batch["x"], batch["y"], batch.get("weight"))
    if isinstance(batch, Sequence) and len(batch) == 2:
        return Batch(batch[0], batch[1], None)
    shown = f"a mapping with {sorted(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
    what, fix = f"the batch is {shown}; a task reads {{'x', 'y'}} or (x, y)", "let the dataset return (x, y)"
    if isinstance(batch, Sequence | Mapping) and not isinstance(batch, str) and len(batch) > 2:
        fix = 'let the dataset return ({"a": a, "b": b}, y): several inputs are one dict, see docs/lightning-module.md'
    raise MLScaleError(what, where="data", fix=f"{fix}\nlet the data module return a dict with x and y")


def get_batch_size(batch: object) -> int:
    """Return the samples in any batch: the length of the first tensor or list in it; 0 where it has none."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    if isinstance(batch, Mapping):
        batch = batch.values()
    elif not isinstance(batch, Sequence) or isinstance(batch, str):
        return 0
    # The first item that has a length: a batch may begin with a name or a number.
    for item in batch:
        if size := get_batch_size(item) if isinstance(item, Tensor | Mapping | tuple | list) else 0:
            return size
    return len(batch) if isinstance(batch, list) else 0
