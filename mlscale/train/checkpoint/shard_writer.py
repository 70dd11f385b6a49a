"""Write sharded checkpoints by torch.distributed.checkpoint, committed as a whole by the first rank.

All of it runs in the thread that writes, and in a process group of its own: a collective in the default group would
meet those of the training.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_saver import save

from mlscale.atomic_files import sync_folder
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.checkpoint_files.sharded_folder import STATE, open_aside_folder, replace_path, write_parts
from mlscale.train.checkpoint.one_file import write_checkpoint_file
from mlscale.train.checkpoint.shard_split import ShardPlacement

if TYPE_CHECKING:
    from typing_extensions import Buffer


def commit_sharded(
    content: Mapping[str, Any],
    *,
    shards: Mapping[str, ShardPlacement],
    target: Path,
    record: CheckpointRecord,
    group: dist.ProcessGroup,
    prepare: Callable[[], None],
) -> None:
    """Write a checkpoint into a folder aside, and rename it to `target`. A collective of `group`.

    Args:
        content: `state`, all that is not sharded, of the first rank; `tensors`, this rank's parts by their names.
        shards: where these belong; their own tensors may have changed meanwhile.
        target: the folder.
        record: of the checkpoint.
        group: a group of all ranks that this thread alone uses.
        prepare: makes the folder that `target` is in; the first rank calls it.

    Raises:
        OSError: any rank could not write; an older checkpoint of this name is left as it was.
    """
    is_first = dist.get_rank(group) == 0
    error: BaseException | None = None
    with contextlib.ExitStack() as stack:
        aside: Path | None = None
        if is_first:
            try:
                prepare()
                aside = stack.enter_context(open_aside_folder(target))
            except OSError as raised:
                error = raised
        aside = _share(aside, group)
        digests: dict[str, str] = {}
        if aside is not None:
            try:
                digests = _write_own_part(aside, content["tensors"], shards, group)
            except (OSError, CheckpointException) as raised:
                error = error or _find_os_error(raised)
        reports: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(reports, (digests, error), group=group)
        error = error or next((raised for _, raised in reports if raised is not None), None)
        if is_first and aside is not None and error is None:
            try:
                _commit_parts(aside, content["state"], {name: d for part, _ in reports for name, d in part.items()},
                              target, record)  # fmt: skip
            except OSError as raised:
                error = raised
        # The first rank's error is that of all.
        error = _share(error, group)
    if error is not None:
        raise error


def _share(value: object, group: dist.ProcessGroup) -> Any:
    values = [value]
    dist.broadcast_object_list(values, src=dist.get_global_rank(group, 0), group=group)
    return values[0]


def _write_own_part(
    aside: Path, tensors: Mapping[str, torch.Tensor], shards: Mapping[str, ShardPlacement], group: dist.ProcessGroup
) -> dict[str, str]:
    writer = FileSystemWriter(aside)
    writer.fs = files = _HashingFiles()
    save(dict(tensors), storage_writer=writer, planner=_ShardPlanner(tensors, shards), process_group=group)
    return files.digests


def _commit_parts(
    aside: Path, state: dict[str, Any], digests: dict[str, str], target: Path, record: CheckpointRecord
) -> None:
    parts = write_parts(aside, digests)
    write_checkpoint_file(aside / STATE, state, replace(record, parts=parts))
    # Before the rename: after a power failure the name must not refer to a folder without its files.
    sync_folder(aside)
    replace_path(aside, target)
    sync_folder(target.parent)


def _find_os_error(error: BaseException) -> BaseException:
    """Return the system's error in what torch.distributed.checkpoint raises on every rank."""
    if not isinstance(error, CheckpointException):
        return error
    causes = [cause for cause, _ in error.failures.values()]
    return next((cause for cause in causes if isinstance(cause, OSError)), causes[0] if causes else error)


class _ShardPlanner(DefaultSavePlanner):
    """A plan of shards that are plain tensors: copies in host memory have no mesh."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], shards: Mapping[str, ShardPlacement]) -> None:
        super().__init__(flatten_state_dict=False)
        self._tensors, self._shards = tensors, shards

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan([self._create_item(name, tensor) for name, tensor in self._tensors.items()])
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor:
        return self._tensors[write_item.index.fqn]

    def _create_item(self, name: str, tensor: torch.Tensor) -> WriteItem:
        shard = self._shards[name]
        offsets = torch.Size(shard.offsets)
        data = TensorWriteData(
            chunk=ChunkStorageMetadata(offsets=offsets, sizes=tensor.size()),
            properties=TensorProperties.create_from_tensor(tensor),
            size=torch.Size(shard.size),
        )
        return WriteItem(index=MetadataIndex(name, offsets), type=WriteItemType.SHARD, tensor_data=data)


class _HashingFiles(FileSystem):
    """Files that are hashed while they are written, and whose errors are raised when they are closed."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}

    @contextlib.contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        with _HashingFile(path, mode) as file:
            yield file
            if file.error is not None:
                raise file.error
            self.digests[Path(path).name] = file.digest.hexdigest()

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        super().rename(path, new_path)
        self.digests[Path(new_path).name] = self.digests.pop(Path(path).name)


class _HashingFile(io.FileIO):
    def __init__(self, path: str | os.PathLike[str], mode: str) -> None:
        super().__init__(path, mode)
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Buffer) -> int:
        """Write all of `data`. An error is kept: raised inside `torch.save` it would end the process."""
        view = memoryview(data).cast("B")
        count = view.nbytes
        # One system call writes at most 2 GiB.
        while view and self.error is None:
            try:
                written = super().write(view)
            except OSError as error:
                self.error = error
                break
            self.digest.update(view[:written])
            view = view[written:]
        return count
