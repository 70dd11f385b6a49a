"""Write a checkpoint by a thread, from a copy of the state, while the training continues."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class SaveInFlight:
    """A save that the thread has not concluded.

    Attributes:
        target, record: of the checkpoint.
        writing: done once it is committed, or has failed.
        removals: of the checkpoints that it replaces.
    """

    target: Path
    record: CheckpointRecord
    writing: Future[None]
    removals: list[Future[None]] = field(default_factory=list)


class BackgroundWriter:
    """A thread that writes one checkpoint at a time, and then removes those that it replaces."""

    def __init__(self) -> None:
        self._copier = HostCopier()
        self._thread: ThreadPoolExecutor | None = None
        self._save: SaveInFlight | None = None

    @property
    def is_busy(self) -> bool:
        """True from the start of a save until `wait_for_save`."""
        return self._save is not None

    @property
    def is_finished(self) -> bool:
        """True where a save was started, and `wait_for_save` would not wait for it."""
        return self._save is not None and all(part.done() for part in (self._save.writing, *self._save.removals))

    def start_save(
        self, checkpoint: dict[str, Any], target: Path, record: CheckpointRecord, commit: Callable[[Any], None]
    ) -> None:
        """Copy `checkpoint`, and let the thread pass the copy to `commit`."""
        assert self._save is None  # a second copy would take the memory of another state
        copied = self._copier.copy_state(checkpoint)

        def commit_copy() -> None:
            copied.wait_for_device()
            commit(copied.content)

        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="mlscale-checkpoint")
        self._save = SaveInFlight(target, record, self._thread.submit(commit_copy))

    def remove_after_save(self, remove: Callable[[], None]) -> None:
        """Call `remove` once the save in flight is committed; not if it fails."""
        assert self._save is not None
        assert self._thread is not None
        writing = self._save.writing

        def remove_if_saved() -> None:
            # The thread does one after the other, so this does not wait.
            if writing.exception() is None:
                remove()

        self._save.removals.append(self._thread.submit(remove_if_saved))

    def wait_for_save(self) -> tuple[SaveInFlight, BaseException | None] | None:
        """Wait for the save in flight, and return it with its error; None where nothing is in flight."""
        save = self._save
        if save is None:
            return None
        error = save.writing.exception()
        failed = [error] + [removal.exception() for removal in save.removals]
        self._save = None
        self._copier.reclaim_buffers()
        return save, next((raised for raised in failed if raised is not None), None)

    def end_thread(self) -> None:
        """End the thread, and free the buffers."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self._copier = HostCopier()


_SPARE_PER_USED = 3  # a copy of the weights alone may be followed by one with an optimizer's two states


class HostCopier:
    """Copies states into buffers that are used again: to get fresh memory from the system takes longer than the copy.

    Tensors that share a storage share it in the copy, too, as `torch.save` has them in a file.
    """

    def __init__(self) -> None:
        self._spare: dict[tuple[int, bool], list[torch.UntypedStorage]] = defaultdict(list)
        self._used: list[tuple[tuple[int, bool], torch.UntypedStorage]] = []

    def copy_state(self, state: object) -> HostCopy:
        """Return a copy of `state`, in buffers that belong to it until `reclaim_buffers`.

        Of what is on a CUDA device, the copy is only started; `HostCopy.wait_for_device` waits for it.
        """
        walk = _StateWalk(self._take_buffer)
        content = walk.copy_value(state)
        events = []
        for device in walk.devices:
            # On the stream that computes: later steps, which change the state, come after the copy.
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            events.append(event)
        return HostCopy(content, events)

    def reclaim_buffers(self) -> None:
        """Take back the buffers of all copies, which must not be read any more."""
        used = sum(size for (size, _), _ in self._used)
        spare = sum(size * len(buffers) for (size, _), buffers in self._spare.items())
        # States whose sizes change at each save would otherwise pile up.
        if spare > _SPARE_PER_USED * used:
            self._spare.clear()
        for key, buffer in self._used:
            self._spare[key].append(buffer)
        self._used.clear()

    def _take_buffer(self, size: int, *, pinned: bool) -> torch.UntypedStorage:
        spare = self._spare[size, pinned]
        buffer = spare.pop() if spare else torch.empty(size, dtype=torch.uint8, pin_memory=pinned).untyped_storage()
        self._used.append(((size, pinned), buffer))
        return buffer


class HostCopy:
    """A copy of a state in host memory.

    Attributes:
        content: the copy; complete once `wait_for_device` has returned.
    """

    def __init__(self, content: Any, events: list[torch.cuda.Event]) -> None:
        self.content = content
        self._events = events

    def wait_for_device(self) -> None:
        """Wait until the devices have copied all of it."""
        for event in self._events:
            event.synchronize()


class _StateWalk:
    """One walk through a state: what occurs in it twice is copied once."""

    def __init__(self, take_buffer: Callable[..., torch.UntypedStorage]) -> None:
        self._take_buffer = take_buffer
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._copied: dict[int, Any] = {}  # by id, as `copy.deepcopy` keeps them
        self.devices: set[torch.device] = set()

    def copy_value(self, value: object) -> Any:
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        if id(value) in self._copied:
            return self._copied[id(value)]
        if isinstance(value, dict) and type(value) in (dict, OrderedDict):
            return self._copy_mapping(value)
        if isinstance(value, list) and type(value) is list:
            items: list[Any] = []
            self._copied[id(value)] = items
            items.extend(self.copy_value(item) for item in value)
            return items
        made: Any
        if isinstance(value, tuple) and type(value) is tuple:
            made = tuple(self.copy_value(item) for item in value)
        elif isinstance(value, torch.Tensor) and _has_plain_storage(value):
            made = self._copy_tensor(value)
        else:
            # Third-party classes, numpy's arrays, sparse tensors: slower, but rarely large. The memo is shared, since
            # they may refer to what was copied already.
            made = copy.deepcopy(value, self._copied)
        self._copied[id(value)] = made
        return made

    def _copy_mapping(self, value: dict[object, object]) -> dict[Any, Any]:
        made = type(value)()
        self._copied[id(value)] = made
        for key, item in value.items():
            made[key] = self.copy_value(item)
        if isinstance(value, OrderedDict):
            # Versions of modules are kept in an attribute of a state_dict, `_metadata`.
            vars(made).update(self.copy_value(dict(vars(value))))
        return made

    def _copy_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = self._copy_storage(storage)
        with torch.no_grad():
            made = torch.empty(0, dtype=tensor.dtype).set_(
                self._storages[key], tensor.storage_offset(), tensor.size(), tensor.stride()
            )
        return torch.nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else made

    def _copy_storage(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        is_cuda = storage.device.type == "cuda"
        buffer = self._take_buffer(storage.nbytes(), pinned=is_cuda)
        if is_cuda:
            buffer.copy_(storage, non_blocking=True)
            self.devices.add(storage.device)
        else:
            # By numpy, in one thread: memory is the limit, and on a busy machine torch's threads wait for each other.
            np.copyto(_view_as_bytes(buffer), _view_as_bytes(storage))
        return buffer


def _view_as_bytes(storage: torch.UntypedStorage) -> NDArray[np.uint8]:
    view: NDArray[np.uint8] = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    return view


def _has_plain_storage(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is its storage, offset, size and stride, and nothing else."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type in ("cpu", "cuda")
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )
