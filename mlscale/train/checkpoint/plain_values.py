"""Convert values to what a weights-only load can read: Python's plain values and tensors."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


def convert_to_plain(value: object) -> Any:
    """Return `value` made of what a weights-only load reads; OmegaConf's containers become dicts and lists.

    Raises:
        TypeError: it holds something else.
    """
    # Exact types: a subclass, such as np.float64 of float, is pickled by its class, which a weights-only load refuses.
    if value is None or type(value) in (bool, int, float, str, bytes, complex) or type(value) is torch.Tensor:
        return value
    if isinstance(value, Mapping):
        return {convert_to_plain(key): convert_to_plain(value[key]) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = [convert_to_plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(type(value))


def convert_numpy_numbers(value: Any) -> Any:
    """Return `value` with numpy's numbers as Python's, which a weights-only load reads: a schedule that is computed by
    numpy leaves them in the states of optimizers and schedulers. float32 and others would change their value, and stay.
    """
    if isinstance(value, np.float64 | np.int64 | np.bool_):
        return value.item()
    if type(value) in (dict, OrderedDict, Counter):
        pairs = [(convert_numpy_numbers(key), convert_numpy_numbers(item)) for key, item in value.items()]
        same = all(
            new is old
            for pair, item in zip(pairs, value.items(), strict=True)
            for new, old in zip(pair, item, strict=True)
        )
        return value if same else type(value)(dict(pairs))
    if type(value) in (list, tuple):
        parts = [convert_numpy_numbers(item) for item in value]
        return value if all(a is b for a, b in zip(value, parts, strict=True)) else type(value)(parts)
    return value
