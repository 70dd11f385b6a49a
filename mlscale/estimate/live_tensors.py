"""Count the bytes of live tensors during a computation, real or fake, by purpose."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LiveTensorMode(TorchDispatchMode):
    """A mode in which every storage that an operation returns is counted until it is freed.

    The sum of storages is the memory requested from an allocator, except scratch memory inside of kernels. Without
    `scratch` it equals that of `torch.distributed._tools.MemTracker`, byte for byte, in less time.

    Args:
        scratch: returns the bytes that a kernel needs in addition to its arguments and results, from the operation,
            its arguments and its result.

    Attributes:
        peak: the largest sum so far, bytes.
    """

    def __init__(self, scratch: Callable[[Any, tuple[Any, ...], Any], int] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._scratch, self._scratch_at_peak = scratch, 0
        self.current = self.peak = 0
        self._events: list[tuple[int, int]] = []  # (number of the storage, bytes): negative where it was freed
        self._peak_at = 0  # number of events up to the peak
        self._live: dict[int, tuple[int, int]] = {}  # address of the storage's handle: number and bytes
        self._numbers = 0
        self._kinds: dict[int, str] = {}

    def add_tensors(self, value: object) -> None:
        """Count the tensors in `value`, a tensor or any nesting of lists, tuples and dictionaries."""
        for tensor in iterate_tensors(value):
            storage = tensor.untyped_storage()
            # The address of the C++ storage: views share it, and are counted once.
            key = storage._cdata
            if key not in self._live:
                number, size = self._numbers, storage.nbytes()
                self._numbers += 1
                self._live[key] = (number, size)
                self._change_current_bytes(number, size)
                # Python frees a tensor's storage without an operation that this mode could see.
                weakref.finalize(storage, self._drop_storage, key)

    def set_purpose(self, kind: str, value: object) -> None:
        """Name the purpose of the tensors in `value`; the first name of a storage stays."""
        self.add_tensors(value)
        for tensor in iterate_tensors(value):
            self._kinds.setdefault(self._live[tensor.untyped_storage()._cdata][0], kind)

    def split_peak(self) -> dict[str, int]:
        """Return the bytes by name at the moment of the peak; tensors without a name are 'other'."""
        # Replayed from the events: names may be given after the peak, as gradients get theirs after the backward pass.
        sums: dict[str, int] = {}
        for number, change in self._events[: self._peak_at]:
            kind = self._kinds.get(number, "other")
            sums[kind] = sums.get(kind, 0) + change
        return sums | {"scratch": self._scratch_at_peak}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add_tensors(result)
        if self._scratch is not None:
            self._update_peak(self._scratch(func, args, result))
        return result

    def _change_current_bytes(self, number: int, change: int) -> None:
        self.current += change
        self._events.append((number, change))
        self._update_peak(0)

    def _update_peak(self, scratch: int) -> None:
        """Record a new peak, if the live tensors and `scratch` bytes are one."""
        if self.current + scratch > self.peak:
            self.peak, self._scratch_at_peak, self._peak_at = self.current + scratch, scratch, len(self._events)

    def _drop_storage(self, key: int) -> None:
        if key in self._live:
            number, size = self._live.pop(key)
            self._change_current_bytes(number, -size)


def iterate_tensors(value: object) -> Iterable[torch.Tensor]:
    """Yield every tensor in any nesting of lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from iterate_tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from iterate_tensors(item)
