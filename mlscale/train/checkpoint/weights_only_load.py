"""Load the content of a checkpoint after verifying its digest: tensors and plain values alone, never code."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from mlscale.config.names.suggest import format_override
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import describe_checkpoint_state
from mlscale.runs.checkpoint_files.checkpoint_search import find_latest_valid
from mlscale.runs.checkpoint_files.sharded_folder import STATE, measure_folder
from mlscale.train.checkpoint.shard_split import count_bytes, find_marks, join_state

if TYPE_CHECKING:
    from torch.serialization import MAP_LOCATION

OTHER_WEIGHTS = "init_from=<a checkpoint of another run>; this folder has no other one"


def load_checkpoint_file(
    path: str | Path, map_location: MAP_LOCATION = "cpu", *, otherwise: str = OTHER_WEIGHTS
) -> dict[str, Any]:
    """Return the content of a checkpoint after verifying its digest; other programs' files, without one, are read too.

    A sharded one, of any number of ranks, is read whole.

    Args:
        path: the file, or the folder of a sharded one.
        map_location: the device of the tensors; those of a sharded one are on the CPU.
        otherwise: the fix where the file is no use and its folder has no other one; each command has keys of its own.

    Raises:
        MLScaleError: it does not exist, is torn or altered, or holds objects that only code can build.
    """
    file = Path(path).expanduser()
    try:
        checked = verify_checkpoint(file)
        if checked.is_corrupt:
            raise MLScaleError(
                f"the checkpoint can't be used: {describe_checkpoint_state(checked)}",
                where=str(file),
                fix=_suggest_checkpoint(file, otherwise),
            )
        if file.is_dir():
            return read_sharded(file)
        return cast("dict[str, Any]", torch.load(file, map_location=map_location, weights_only=True))
    except OSError as error:
        raise MLScaleError(
            "the checkpoint can't be read",
            where=str(file),
            why=error.strerror or str(error),
            fix=_suggest_checkpoint(file, otherwise),
        ) from error
    except Exception as error:
        if isinstance(error, MLScaleError):
            raise
        foreign: list[str] = []
        # What another program wrote may be no pickle that can be searched for the classes that it names.
        with contextlib.suppress(Exception):
            foreign = find_unsafe_globals(file / STATE if file.is_dir() else file)
        if not foreign:
            raise MLScaleError(
                "the checkpoint can't be read",
                where=str(file),
                why=str(error).split("\n")[0],
                fix=_suggest_checkpoint(file, otherwise),
            ) from error
        raise MLScaleError(
            "the checkpoint holds more than tensors and plain values",
            where=str(file),
            why=f"to read {', '.join(foreign)} would run code out of the file",
            fix=SAVE_PLAIN_VALUES,
        ) from error


SAVE_PLAIN_VALUES = (
    "save plain values alone: self.save_hyperparameters(ignore=[…]), and tensors and numbers in state_dict() and "
    "on_save_checkpoint()"
)


def find_unsafe_globals(path: Path) -> list[str]:
    """Return the classes and functions named in a checkpoint that a weights-only load refuses, sorted."""
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))


def _suggest_checkpoint(file: Path, otherwise: str) -> str:
    path, _ = find_latest_valid(file.parent) if file.parent.is_dir() else (None, [])
    if path is None:
        return otherwise
    # A checkpoint of the run that is named goes by its name, another program's weights by their file.
    named = f"checkpoint={path.stem}" if otherwise != OTHER_WEIGHTS else format_override("init_from", str(path))
    return f"{named}, the latest one there whose digest holds"


_METADATA = "torch.distributed.checkpoint.metadata"
_CLASSES = {
    (_METADATA, "Metadata"),
    (_METADATA, "MetadataIndex"),
    (_METADATA, "TensorStorageMetadata"),
    (_METADATA, "TensorProperties"),
    (_METADATA, "ChunkStorageMetadata"),
    (_METADATA, "StorageMeta"),
    (_METADATA, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("collections", "OrderedDict"),
}


def read_sharded(folder: Path) -> dict[str, Any]:
    """Return the content of a sharded checkpoint, whole, on the CPU.

    Raises:
        pickle.UnpicklingError: the index names other classes than torch.distributed.checkpoint's, or its entries are
            none that mlscale writes.
        OSError, KeyError: a part is missing.
    """
    state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    reader = _SafeReader(folder)
    index = reader.read_metadata()
    names = find_marks(state)
    tensors = {name: _allocate(index.state_dict_metadata[name]) for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        # Without collectives: every rank reads all of it, also where a process group exists. torch warns of that.
        load(tensors, storage_reader=reader, no_dist=True)
    whole: dict[str, Any] = join_state(state, tensors)
    return whole


def _allocate(entry: object) -> torch.Tensor:
    assert isinstance(entry, TensorStorageMetadata)  # checked by `_refuse_other_entries`
    return torch.empty(entry.size, dtype=entry.properties.dtype)


class _SafeReader(FileSystemReader):
    """torch's reader, with an index that is unpickled without running code."""

    def read_metadata(self, *args: object, **kwargs: object) -> Metadata:
        folder = Path(self.path)
        with (folder / ".metadata").open("rb") as file:
            index = _IndexUnpickler(file).load()
        if not isinstance(index, Metadata):
            raise pickle.UnpicklingError("the index is not that of torch.distributed.checkpoint")
        _refuse_other_entries(index, folder)
        index.storage_meta = StorageMeta(load_id=self.load_id)
        return index


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = "pathlib" if module == "pathlib._local" else module  # where Python 3.13 alone has its classes
        if (module, name) in _CLASSES:
            return super().find_class(module, name)
        # Types of numbers and layouts are pickled by their names, such as torch.float32.
        if module == "torch" and isinstance(value := getattr(torch, name, None), torch.dtype | torch.layout):
            return value
        raise pickle.UnpicklingError(f"the index names {module}.{name}, which would run code out of the folder")


def _refuse_other_entries(index: Metadata, folder: Path) -> None:
    """Raise an error for entries that would be unpickled, be read from elsewhere, or take more memory than the files.

    Raises:
        pickle.UnpicklingError: there are such entries.
    """
    needed = 0
    for name, entry in index.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise pickle.UnpicklingError(f"the index has an entry that is not a tensor: {name}")
        needed += count_bytes(entry.size, entry.properties.dtype)
    for item in index.storage_data.values():
        if Path(item.relative_path).name != item.relative_path or item.transform_descriptors:
            raise pickle.UnpicklingError(f"the index names a file outside its folder: {item.relative_path}")
    if needed > measure_folder(folder):
        raise pickle.UnpicklingError("the index describes more bytes than the folder has")
