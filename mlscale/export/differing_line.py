"""The line of a forward that mixes the samples of a batch, or computes something else a second time."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from functools import partial
from itertools import zip_longest
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mlscale.culprit import find_innermost_call, quote_line

_TOLERANCE, _TO_NUMBER = 1e-5, "aten._local_scalar_dense"
_Keywords = Mapping[str, object] | None
_Calls = list[tuple[str, int, str]]
_Done = list[tuple[object, object, _Calls]]
_Result = TypeVar("_Result")
Arrays = NDArray[Any]


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records each operation of torch with what it returns, and the calls that led to it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: _Done = []

    def __torch_dispatch__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: _Keywords = None
    ) -> object:
        value = func(*args, **(kwargs or {}))
        frames = traceback.walk_stack(None)
        calls = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in frames]
        self.done.append((func, value, calls))
        return value


def find_mixing_line(model: nn.Module, samples: Mapping[str, Arrays], others: Mapping[str, Arrays]) -> str:
    """Return the user's line by which a sample first gets other values next to `others` than alone, or that decides by
    them what is computed; "" for none.

    Args:
        model: takes the tensors in this order.
        samples, others: arrays by name, (n, …) and (m, …).
    """
    before, count = (len(next(iter(part.values()))) for part in (others, samples))
    mixed = _record(model, {name: np.concatenate([others[name], rows]) for name, rows in samples.items()})
    for row in range(count):
        own = run_alone(partial(_record, model), {name: rows[row : row + 1] for name, rows in samples.items()})
        if line := _find_difference(mixed, own, partial(_is_own, before + count, before + row)):
            return line
    return ""


def run_alone(run: Callable[[Mapping[str, Arrays]], _Result], sample: Mapping[str, Arrays]) -> _Result:
    """Return what `run` makes of a batch of one sample; of two, where a normalisation by the batch refuses one."""
    try:
        return run(sample)
    except ValueError:
        return run({name: np.repeat(rows, 2, 0) for name, rows in sample.items()})


def _is_own(size: int, at: int, mixed: Tensor, own: Tensor) -> bool:
    """Return whether the values of one sample in a batch of `size` are those of `own`, or are not of a batch."""
    if mixed.shape[:1] != (size,) or not own.ndim or len(own) not in (1, 2) or mixed.shape[1:] != own.shape[1:]:
        return True
    return _are_close(mixed[at], own[0])


def find_random_line(model: nn.Module, samples: Mapping[str, Arrays]) -> str:
    """Return the user's line that first gives other values for the same samples a second time; "" for none."""
    first, second = (_record(model, samples) for _ in range(2))
    return _find_difference(first, second, lambda one, two: one.shape != two.shape or _are_close(one, two))


def _record(model: nn.Module, batch: Mapping[str, Arrays]) -> _Done:
    with torch.no_grad(), _Operations() as operations:
        model(*map(torch.from_numpy, batch.values()))
    return list(operations.done)


def _find_difference(first: _Done, second: _Done, is_same: Callable[[Tensor, Tensor], bool]) -> str:
    """Return the line of the first operation whose value or kind differs: both passes are compared in their order."""
    decided: _Calls = []
    for one, two in zip_longest(first, second):
        if one is None or two is None or one[0] is not two[0]:
            return quote_line(find_innermost_call(decided or (one or two)[2], own=True))
        if isinstance(one[1], Tensor) and isinstance(two[1], Tensor) and not is_same(one[1], two[1]):
            return quote_line(find_innermost_call(one[2], own=True))
        # What reads a number out of a tensor, as `if` does.
        if str(one[0]).startswith(_TO_NUMBER) and one[1] != two[1]:
            decided = one[2]
    return ""


def _are_close(first: Tensor, second: Tensor) -> bool:
    one, two = (tensor if tensor.is_complex() else tensor.double() for tensor in (first, second))
    return torch.allclose(one, two, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
