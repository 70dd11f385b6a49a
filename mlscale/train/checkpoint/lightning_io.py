"""Lightning's plugin for saving and loading checkpoints: what it saves is committed by `runs.checkpoint_files`.

Any callback that saves goes through here, a user's own `ModelCheckpoint` among them.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric.utilities.cloud_io import _is_local_file_protocol
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mlscale.atomic_files import explain_os_error
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_commit import (
    DISK_FULL_ERRORS,
    remove_incomplete_checkpoints,
)
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.checkpoint_files.checkpoint_search import find_latest_valid
from mlscale.runs.checkpoint_files.sharded_folder import STATE, remove_checkpoint_path
from mlscale.train.checkpoint.background_writer import BackgroundWriter
from mlscale.train.checkpoint.checkpoint_kind import build_checkpoint_record
from mlscale.train.checkpoint.one_file import write_checkpoint_file
from mlscale.train.checkpoint.save_messages import build_write_error, format_disk_full, print_warning
from mlscale.train.checkpoint.shard_split import split_state
from mlscale.train.checkpoint.shard_writer import commit_sharded
from mlscale.train.checkpoint.uploader import CheckpointUploader
from mlscale.train.checkpoint.weights_only_load import SAVE_PLAIN_VALUES, find_unsafe_globals, load_checkpoint_file


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


_HYPER_PARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FailedSave:
    """A save that failed because the disk is full.

    Attributes:
        path: the checkpoint that was to be written.
        step: optimizer steps of the run at that moment.
        reason: the system's message.
    """

    path: str
    step: int
    reason: str


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin for checkpoints, with commits, digests, background saves, and care for full disks.

    - A save is written aside and committed by one rename, with a record and a digest inside (`runs.checkpoint_files`).
    - A save that exceeds the disk, a quota or the largest file size does not end the training: it warns, and the
      earlier file stays. `failed` lists such saves; `unsaved` is true if the last one failed.
    - The checkpoint that a failed save was to replace is not removed, though Lightning requests it.
    - While `in_background` is set, a save returns once the state is copied to host memory; a thread writes it. At most
      one is in flight: the next save waits for it. `finish_save` waits for it, and reports how it ended.
    - A load verifies the digest, and reads tensors and plain values alone.

    Paths of other protocols than local files (s3://…) are written and read as Lightning does, weights-only.

    Args:
        run, config_hash: of the run that saves; every checkpoint names them.
    """

    def __init__(self, run: str | None = None, config_hash: str | None = None) -> None:
        self.run, self.config_hash = run, config_hash
        self.failed: list[FailedSave] = []
        self.unsaved = False
        self.in_background = False
        self.outcomes: list[Callable[[bool], None]] = []  # called once the save in flight is concluded: True if saved
        self.notifications: list[Callable[[], None]] = []  # called once the save in flight is committed, on this rank
        self.uploader: CheckpointUploader | None = None
        self.not_uploaded: list[str] = []  # names of checkpoints, known after `teardown`
        self._writer = BackgroundWriter()
        self._saved = 0
        self._reports = True  # of sharded saves the first rank alone
        self._tidied: set[Path] = set()
        self._warned: set[str] = set()
        self._has_checked_classes = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write `checkpoint`, whole or not at all.

        Args:
            checkpoint: the content, from Lightning. Hyper-parameters that could not be read back are left out, with a
                warning.
            path: where to.
            storage_options: None.

        Raises:
            TypeError: `storage_options` is given.
            MLScaleError: it can't be written, for another reason than a full disk (exit code 5).
        """
        if storage_options is not None:
            raise TypeError(f"{type(self).__name__} has no storage options")
        # Before anything else: the one in flight may fail, and reports that by `unsaved`.
        self.finish_save()
        self.unsaved = False
        self._remove_unsafe_parameters(checkpoint)
        checkpoint = convert_numpy_numbers(checkpoint)
        target = Path(path).expanduser().absolute()
        if not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path)
            return
        record = replace(build_checkpoint_record(checkpoint, target), run=self.run, config_hash=self.config_hash)
        commit = self._upload_after(partial(_commit_checkpoint, target=target, record=record, tidied=self._tidied))
        if self.in_background:
            self._writer.start_save(checkpoint, target, record, commit)
            return
        error = None
        try:
            commit(checkpoint)
        except OSError as raised:
            error = raised
        self._conclude_save(target, record, error)

    def save_sharded(self, checkpoint: dict[str, Any], path: str | Path, group: dist.ProcessGroup) -> None:
        """Write a checkpoint with DTensors in it as a folder, each rank its shards. A collective.

        Args:
            checkpoint: the content, the same on all ranks but for the shards.
            path: the folder; what has this name is replaced.
            group: a process group of all ranks that nothing else uses.

        Raises:
            MLScaleError: it can't be written, for another reason than a full disk (exit code 5).
        """
        self.finish_save()
        self.unsaved = False
        self._remove_unsafe_parameters(checkpoint)
        self._reports = dist.get_rank(group) == 0
        state, parts, shards = split_state(convert_numpy_numbers(checkpoint))
        target = Path(path).expanduser().absolute()
        record = replace(build_checkpoint_record(checkpoint, target), run=self.run, config_hash=self.config_hash)
        # What is not sharded is the same on all ranks; the first one writes it.
        content = {
            "state": state if self._reports else None,
            "tensors": parts,
        }
        prepare = partial(_prepare_folder, target.parent, self._tidied)
        commit = partial(commit_sharded, shards=shards, target=target, record=record, group=group, prepare=prepare)
        # By the thread in any case: it alone uses the group.
        self._writer.start_save(content, target, record, self._upload_after(commit))
        if not self.in_background:
            self.finish_save()

    def finish_save(self) -> None:
        """Wait for the save in flight, if there is one; prints a warning where its disk is full.

        Raises:
            MLScaleError: it can't be written, for another reason than a full disk (exit code 5).
        """
        ended = self._writer.wait_for_save()
        if ended is None:
            return
        save, error = ended
        if error is not None and not isinstance(error, OSError):
            raise error
        self._conclude_save(save.target, save.record, error)

    @property
    def is_saving(self) -> bool:
        """True where a save of this rank is in flight."""
        return self._writer.is_busy

    @property
    def is_save_finished(self) -> bool:
        """True where a save is in flight, and `finish_save` would not wait for it."""
        return self._writer.is_finished

    def _conclude_save(self, target: Path, record: CheckpointRecord, error: OSError | None) -> None:
        notifications, self.notifications = self.notifications, []
        if error is None:
            self._saved += 1
            if self._reports:
                self._warn_unloadable(target)
            for notify in notifications:
                notify()
            return
        if error.errno not in DISK_FULL_ERRORS:
            raise build_write_error(target, error) from error
        self.unsaved = True
        self.failed.append(FailedSave(str(target), record.step, explain_os_error(error, target)))
        if self._reports:
            print_warning(format_disk_full(target, record, error))

    def _upload_after(self, commit: partial[None]) -> Callable[[dict[str, Any]], None]:
        """Return a function that commits a checkpoint, and lets it be uploaded at once: the thread that commits it
        removes the one that it replaces next, and the store must not lose that before it has got the new one."""

        def commit_and_upload(content: dict[str, Any]) -> None:
            commit(content)
            if self.uploader is not None:
                self.uploader.add_checkpoint(commit.keywords["target"])

        return commit_and_upload

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint after verifying its digest, weights-only whatever `weights_only` is.

        Raises:
            MLScaleError: it does not exist, is torn or altered, or holds objects that only code can build.
        """
        if not _is_local_file_protocol(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        return load_checkpoint_file(path, map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, unless it is one that a failed save was to replace; after the save in flight is
        committed."""
        if self._writer.is_busy:
            self._writer.remove_after_save(partial(self._remove, path))
        elif self.unsaved:
            _log.debug("%s stays: the save that was to replace it failed", path)
        else:
            self._remove(path)

    def _remove(self, path: str | Path) -> None:
        if _is_local_file_protocol(path):
            remove_checkpoint_path(Path(path))  # a folder in one step, too
            if self.uploader is not None:
                self.uploader.remove_checkpoint(Path(path))
        else:
            super().remove_checkpoint(path)

    def teardown(self) -> None:
        """Wait for the save in flight, and end the thread. Lightning calls it after a fit that failed, too."""
        try:
            self.finish_save()
        except Exception as error:
            # Not raised: it would hide the error that has ended the fit. A fit that ends well has no save in flight.
            print_warning(f"the last checkpoint was not saved: {error}")
        self.outcomes.clear()
        self._writer.end_thread()
        if self.uploader is not None:
            self.not_uploaded, self.uploader = self.uploader.close(), None

    def explain_lost_state(self) -> MLScaleError | None:
        """Return the error for a fit whose final state could not be saved, or not uploaded; None where it was."""
        if self.not_uploaded:
            return MLScaleError(
                f"checkpoints of the run are not in its object store: {', '.join(self.not_uploaded)}",
                where="callbacks.checkpoint.dirpath",
                why="the store could not be reached; the run is complete on this machine",
                fix="mlscale runs resume last, once it can be reached: nothing is trained again",
                exit=Exit.ENVIRONMENT,
            )
        if not self.failed:
            return None
        count, last = len(self.failed), self.failed[-1]
        folder = Path(last.path).parent
        latest, _ = find_latest_valid(folder) if folder.is_dir() else (None, [])
        many = "its only save" if count == 1 and not self._saved else f"{count} save{'s' * (count != 1)}"
        return MLScaleError(
            f"the final state of the run could not be saved: {many} failed, the last one at step {last.step:,}",
            where=last.path,
            why=last.reason,
            fix="mlscale runs resume last, once there is space"
            + (
                f": it resumes from {latest.name}"
                if latest
                else ": it starts over; or a new run with runs_dir=<a folder with free space>"
            ),
            exit=Exit.ENVIRONMENT,
        )

    def _remove_unsafe_parameters(self, checkpoint: dict[str, Any]) -> None:
        """Remove from the hyper-parameters what a weights-only load refuses: modules, factories, classes."""
        for key in _HYPER_PARAMETERS:
            if not isinstance(values := checkpoint.get(key), Mapping):
                continue
            plain_values, left = {}, []
            for name in values:
                try:
                    # One by one: a value that can't be saved takes no other with it.
                    plain_values[name] = convert_to_plain(values[name])
                except TypeError:
                    left.append(str(name))
            checkpoint[key] = plain_values
            checkpoint.pop("hparams_type", None)  # a class of OmegaConf's
            if left:
                self._warn_once(
                    f"hyper-parameters that are not plain values are left out of checkpoints: {', '.join(sorted(left))}"
                )

    def _warn_unloadable(self, target: Path) -> None:
        if self._has_checked_classes:  # once: every checkpoint of a run holds objects of the same classes
            return
        self._has_checked_classes = True
        # Searched in the file, which names the classes that pickle has written.
        if foreign := find_unsafe_globals(target / STATE if target.is_dir() else target):
            self._warn_once(
                f"{target.name} can't be loaded again, for it holds more than tensors and plain values: "
                f"{', '.join(foreign)}. To fix it, {SAVE_PLAIN_VALUES}."
            )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            print_warning(message)


def _commit_checkpoint(
    checkpoint: dict[str, Any], *, target: Path, record: CheckpointRecord, tidied: set[Path]
) -> None:
    _prepare_folder(target.parent, tidied)
    write_checkpoint_file(target, checkpoint, record)


def _prepare_folder(folder: Path, tidied: set[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if folder not in tidied:
        # Once per folder and process: it removes the unfinished files of saves that were killed.
        remove_incomplete_checkpoints(folder)
        tidied.add(folder)
