"""Read sharded checkpoints, of any number of ranks, as one state; no code out of the folder is run.

torch.distributed.checkpoint's index, `.metadata`, is a pickle, and torch loads it as one: here it may name its own
classes alone. Entries that are not tensors, which torch unpickles as well, are refused: mlscale writes none.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from mlscale.runs.checkpoint_files.sharded_folder import STATE, measure_folder
from mlscale.train.checkpoint.shard_split import count_bytes, find_marks, join_state

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
