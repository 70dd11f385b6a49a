"""Count the bytes of live tensors during a computation, real or fake, by purpose."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

# Of an operation, its arguments and its result: bytes that its kernel needs in addition to them.
Scratch = Callable[[Any, tuple[Any, ...], Any], int]


class LiveTensorMode(TorchDispatchMode):
    """A mode in which every storage that an operation returns is counted until it is freed.

    The sum of storages is the memory requested from an allocator, except scratch memory inside of kernels. Without
    `scratch` it equals that of `torch.distributed._tools.MemTracker`, byte for byte, in less time.

    Args:
        scratch: returns the bytes that a kernel needs in addition to its arguments and results, from the operation,
            its arguments and its result.

    Attributes:
        peak: the largest sum so far, bytes.
        start: the peak before the steps; 0 until `restart_peak`.
        pause: a context manager; what operations return within it is not counted.
        purposes: the purposes of tensors that are arguments of an operation, by its name, and by the position or the
            name of the argument.
        hosted: purposes of tensors that are in the host's memory in a run, and do not count.
        hosted_peak: the largest sum of these, bytes.
        own_state_bytes, whole_state_bytes: of weights, buffers and the optimizer's state after the steps: of this
            process, and of all that share them.
    """

    def __init__(self, scratch: Scratch | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.scratch, self._scratch_at_peak = scratch, 0
        self.purposes: Mapping[str, Mapping[int | str, str]] = {}
        self.hosted: frozenset[str] = frozenset()
        self.hosted_peak = self.own_state_bytes = self.whole_state_bytes = 0
        self._hosted: dict[int, int] = {}  # address of the storage's handle: bytes
        self.pause = Pause()
        self.current = self.peak = self.start = 0
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
            if kind in self.hosted:
                self._move_to_host(tensor.untyped_storage())
            self._kinds.setdefault(self._live[tensor.untyped_storage()._cdata][0], kind)

    def update_storage(self, storage: torch.UntypedStorage) -> None:
        """Count the new size of a storage that was resized."""
        if storage._cdata in self._live:
            number, before = self._live[storage._cdata]
            self._live[storage._cdata] = (number, storage.nbytes())
            self._change_current_bytes(number, storage.nbytes() - before)

    def restart_peak(self) -> None:
        """Keep the peak so far as that of the start, and let it begin again at what is live now."""
        self.start, self.peak = self.peak, self.current
        self._peak_at, self._scratch_at_peak = len(self._events), 0

    def split_peak(self) -> dict[str, int]:
        """Return the bytes by name at the moment of the peak; tensors without a name are 'other'."""
        # Replayed from the events: names may be given after the peak, as gradients get theirs after the backward pass.
        sums: dict[str, int] = {}
        for number, change in self._events[: self._peak_at]:
            kind = self._kinds.get(number, "other")
            sums[kind] = sums.get(kind, 0) + change
        return sums | {"scratch": self._scratch_at_peak}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # A sharded tensor computes on its shard, by operations that come here next.
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.pause.is_active:
            return result
        self.add_tensors(result)
        if self.scratch is not None:
            self._update_peak(self.scratch(func, args, result))
        for which, purpose in self.purposes.get(func._schema.name, {}).items():  # type: ignore[attr-defined]
            self.set_purpose(purpose, kwargs[which] if isinstance(which, str) else args[which])
        return result

    def _change_current_bytes(self, number: int, change: int) -> None:
        self.current += change
        self._events.append((number, change))
        self._update_peak(0)

    def _update_peak(self, scratch: int) -> None:
        """Record a new peak, if the live tensors and `scratch` bytes are one."""
        if self.current + scratch > self.peak:
            self.peak, self._scratch_at_peak, self._peak_at = self.current + scratch, scratch, len(self._events)

    def _move_to_host(self, storage: torch.UntypedStorage) -> None:
        """Count a storage as one of the host, and no longer as one of the device."""
        key = storage._cdata
        number, size = self._live[key]
        if size:
            self._live[key], self._hosted[key] = (number, 0), size
            self._change_current_bytes(number, -size)
            self.hosted_peak = max(self.hosted_peak, sum(self._hosted.values()))

    def _drop_storage(self, key: int) -> None:
        if key in self._live:
            number, size = self._live.pop(key)
            self._hosted.pop(key, None)
            self._change_current_bytes(number, -size)


class Pause:
    """A context manager that can be entered again and again, though not within itself."""

    is_active = False

    def __enter__(self) -> None:
        self.is_active = True

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.is_active = False


def iterate_tensors(value: object) -> Iterable[torch.Tensor]:
    """Yield every tensor in any nesting of lists, tuples and dictionaries; of a sharded one this rank's shard."""
    if isinstance(value, DTensor):
        yield value.to_local()
    elif isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from iterate_tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from iterate_tensors(item)


def map_tensors(value: object, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a nesting of lists, tuples and dictionaries with its tensors changed; tuples become lists."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_tensors(item, change) for item in value]
    return value
