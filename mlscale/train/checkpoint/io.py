"""Reading and writing of Lightning's checkpoints: committed with digests, read weights-only.

Any callback that saves goes through here, a user's own `ModelCheckpoint` among them.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric.utilities.cloud_io import _is_local_file_protocol
from pytorch_lightning.plugins.io import TorchCheckpointIO
from tqdm import tqdm

from mlscale.atomic_files import explain_os_error
from mlscale.errors import Exit, MLScaleError
from mlscale.runs import checkpoint_files as checkpoints
from mlscale.runs.checkpoint_files import DISK_FULL_ERRORS, CheckpointKind, CheckpointRecord, Writer

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
    """Lightning's plugin for checkpoints, with commits, digests, and care for full disks.

    - A save is written aside and committed by one rename, with a record and a digest inside (`runs.checkpoints`).
    - A save that exceeds the disk, a quota or the largest file size does not end the training: it warns, and the
      earlier file stays. `failed` lists such saves; `unsaved` is true if the last one failed.
    - The checkpoint that a failed save was to replace is not removed, though Lightning requests it.
    - A load verifies the digest, and reads tensors and plain values alone.

    Paths of other protocols than local files (s3://…) are written and read as Lightning does, weights-only.

    Args:
        run, config_hash: of the run that saves; every checkpoint names them.
    """

    def __init__(self, run: str | None = None, config_hash: str | None = None) -> None:
        self.run, self.config_hash = run, config_hash
        self.failed: list[FailedSave] = []
        self.unsaved = False
        self._saved = 0
        self._tidied: set[Path] = set()
        self._warned: set[str] = set()
        self._has_checked_classes = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
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
        self.unsaved = False
        self._remove_unsafe_parameters(checkpoint)
        checkpoint = _convert_numpy_numbers(checkpoint)
        if not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path)
            return
        target = Path(path).expanduser().absolute()
        record = replace(build_checkpoint_record(checkpoint, target), run=self.run, config_hash=self.config_hash)
        try:
            _commit_checkpoint(checkpoint, target, record, tidied=self._tidied)
        except OSError as error:
            if error.errno not in DISK_FULL_ERRORS:
                raise _build_write_error(target, error) from error
            self.unsaved = True
            self.failed.append(FailedSave(str(target), record.step, explain_os_error(error, target)))
            _print_warning(_format_disk_full(target, record, error))
            return
        self._saved += 1
        self._warn_unloadable(target)

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
        """Remove a checkpoint, unless it is one that a failed save was to replace."""
        if self.unsaved:
            _log.debug("%s stays: the save that was to replace it failed", path)
            return
        super().remove_checkpoint(path)

    def explain_lost_state(self) -> MLScaleError | None:
        """Return the error for a fit whose final state could not be saved; None where no save has failed."""
        if not self.failed:
            return None
        count, last = len(self.failed), self.failed[-1]
        folder = Path(last.path).parent
        latest, _ = checkpoints.find_latest_valid(folder) if folder.is_dir() else (None, [])
        many = "its only save" if count == 1 and not self._saved else f"{count} save{'s' * (count != 1)}"
        return MLScaleError(
            f"the final state of the run could not be saved: {many} failed, the last one at step {last.step:,}",
            where=last.path,
            why=last.reason,
            fix="free space there, then mlscale runs resume last"
            + (
                f": it resumes from {latest.name}"
                if latest
                else ", which starts it over; or a new run with runs_dir=<a folder with free space>"
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
                    plain_values[name] = _convert_to_plain(values[name])
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
        if foreign := _find_unsafe_globals(target):
            self._warn_once(
                f"{target.name} can't be loaded again, for it holds more than tensors and plain values: "
                f"{', '.join(foreign)}. To fix it, {_PLAIN}."
            )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _print_warning(message)


def load_checkpoint_file(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the content of a checkpoint after verifying its digest; other programs' files, without one, are read too.

    Raises:
        MLScaleError: it does not exist, is torn or altered, or holds objects that only code can build.
    """
    file = Path(path).expanduser()
    try:
        checked = checkpoints.verify_checkpoint(file)
        if checked.is_corrupt:
            raise MLScaleError(
                f"the checkpoint can't be used: {checkpoints.describe_checkpoint_state(checked)}",
                where=str(file),
                fix=_suggest_checkpoint(file),
            )
        return cast("dict[str, Any]", torch.load(file, map_location=map_location, weights_only=True))
    except OSError as error:
        raise MLScaleError(
            "the checkpoint can't be read",
            where=str(file),
            why=error.strerror or str(error),
            fix=_suggest_checkpoint(file),
        ) from error
    except Exception as error:
        if isinstance(error, MLScaleError):
            raise
        # A torn file can't be searched for the classes that it names.
        foreign = _find_unsafe_globals(file) if checked.state != "torn" else []
        if not foreign:
            raise MLScaleError(
                "the checkpoint can't be read",
                where=str(file),
                why=str(error).split("\n")[0],
                fix=_suggest_checkpoint(file),
            ) from error
        raise MLScaleError(
            "the checkpoint holds more than tensors and plain values",
            where=str(file),
            why=f"to read {', '.join(foreign)} would run code out of the file",
            fix=_PLAIN,
        ) from error


_PLAIN = (
    "save plain values alone: self.save_hyperparameters(ignore=[…]), and tensors and numbers in state_dict() and "
    "on_save_checkpoint()"
)


def build_checkpoint_record(checkpoint: Mapping[str, Any], path: Path) -> CheckpointRecord:
    """Return the record of a checkpoint; its kind follows from the states that ModelCheckpoint callbacks keep in it."""
    kind, metric, value = _determine_kind(checkpoint.get("callbacks", {}), path)
    return CheckpointRecord(
        kind=kind,
        step=int(checkpoint.get("global_step", 0)),
        epoch=int(checkpoint.get("epoch", 0)),
        resumable="optimizer_states" in checkpoint,
        metric=metric,
        value=value,
    )


def _determine_kind(callbacks: Mapping[str, Any], path: Path) -> tuple[CheckpointKind, str | None, float | None]:
    """Return the kind of the checkpoint at `path`, the metric of the ModelCheckpoint that writes it, and its value."""
    states = [state for state in callbacks.values() if isinstance(state, Mapping) and "best_k_models" in state]
    for state in states:
        best = {_resolve_folder(name): value for name, value in (state.get("best_k_models") or {}).items()}
        if _resolve_folder(path) in best:
            return "best", state.get("monitor"), _parse_finite(best[_resolve_folder(path)])
        if state.get("last_model_path") and _resolve_folder(state["last_model_path"]) == _resolve_folder(path):
            return "last", None, None
        if state.get("best_model_path") and _resolve_folder(state["best_model_path"]) == _resolve_folder(path):
            return "periodic", None, None  # a callback without a metric keeps what it saved last
    if path.stem == "last":
        return "last", None, None
    return ("periodic" if checkpoints.PERIODIC.fullmatch(path.name) else "other"), None, None


def _convert_to_plain(value: Any) -> Any:
    """Return `value` made of what a weights-only load reads; OmegaConf's containers become dicts and lists.

    Raises:
        TypeError: it holds something else.
    """
    # Exact types: a subclass, such as np.float64 of float, is pickled by its class, which a weights-only load refuses.
    if value is None or type(value) in (bool, int, float, str, bytes, complex) or type(value) is torch.Tensor:
        return value
    if isinstance(value, Mapping):
        return {_convert_to_plain(key): _convert_to_plain(value[key]) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = [_convert_to_plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(type(value))


def _convert_numpy_numbers(value: Any) -> Any:
    """Return `value` with numpy's numbers as Python's, which a weights-only load reads: a schedule that is computed by
    numpy leaves them in the states of optimizers and schedulers. float32 and others would change their value, and stay.
    """
    if isinstance(value, np.float64 | np.int64 | np.bool_):
        return value.item()
    if type(value) in (dict, OrderedDict, Counter):
        pairs = [(_convert_numpy_numbers(key), _convert_numpy_numbers(item)) for key, item in value.items()]
        same = all(
            new is old
            for pair, item in zip(pairs, value.items(), strict=True)
            for new, old in zip(pair, item, strict=True)
        )
        return value if same else type(value)(dict(pairs))
    if type(value) in (list, tuple):
        parts = [_convert_numpy_numbers(item) for item in value]
        return value if all(a is b for a, b in zip(value, parts, strict=True)) else type(value)(parts)
    return value


def _find_unsafe_globals(path: Path) -> list[str]:
    """Return the classes and functions named in a checkpoint that a weights-only load refuses, sorted."""
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))


def _resolve_folder(path: str | Path) -> Path:
    # The folder alone is resolved: `last.ckpt` may be a link to another checkpoint.
    return Path(path).parent.resolve() / Path(path).name


def _parse_finite(value: Any) -> float | None:
    number = float(value) if value is not None else float("nan")
    return number if abs(number) < float("inf") else None


def _commit_checkpoint(
    checkpoint: dict[str, Any], target: Path, record: CheckpointRecord, *, tidied: set[Path]
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.parent not in tidied:
        # Once per folder and process: it removes the unfinished files of saves that were killed.
        checkpoints.remove_incomplete_checkpoints(target.parent)
        tidied.add(target.parent)
    writer = Writer(target)
    try:
        torch.save(checkpoint, cast(Any, writer))
    except BaseException:
        # On Ctrl-C, too: no unfinished file is left.
        writer.discard_partial()
        raise
    writer.commit_checkpoint(record)


def _print_warning(message: str) -> None:
    with contextlib.suppress(OSError):  # standard error may be a file on the disk that is full
        tqdm.write(f"warning   {message}", file=sys.stderr)  # above a progress bar
        sys.stderr.flush()


def _format_disk_full(target: Path, record: CheckpointRecord, error: OSError) -> str:
    names = [
        checkpoint.path.name for checkpoint in checkpoints.list_checkpoint_files(target.parent) if checkpoint.record
    ]
    return (
        f"disk full: {target} was not saved at step {record.step}: {explain_os_error(error, target)} "
        f"({shutil.disk_usage(target.parent).free:,} bytes free). The training continues; "
        f"{'what was saved before stays: ' + ', '.join(names) if names else 'nothing is saved yet'}."
    )


def _build_write_error(target: Path, error: OSError) -> MLScaleError:
    return MLScaleError(
        f"can't write the checkpoint {target.name}",
        where=str(target),
        why=explain_os_error(error, target),
        fix="a folder you may write to: runs_dir=…, or dirpath= of the callback that saves",
        exit=Exit.ENVIRONMENT,
    )


def _suggest_checkpoint(file: Path) -> str:
    path, _ = checkpoints.find_latest_valid(file.parent) if file.parent.is_dir() else (None, [])
    return (
        f"use {path}, the latest one there whose digest holds"
        if path
        else "init_from=<a checkpoint of another run>; this folder has no other one"
    )
