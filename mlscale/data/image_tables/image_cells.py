"""A column of images: each cell a path, or the bytes of a file, or both, as Hugging Face writes them."""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.image_files import find_image_suffix, is_image_file
from mlscale.data.image_tables.row_files import RowFile
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    import pyarrow as pa

_ARRAY = b"\x93NUMPY"


class Problem(NamedTuple):
    """A problem of a cell: `what` is wrong with its sample, and the cause."""

    what: str
    why: str


class ImageCells:
    """The cells of one column of all files of a split; its bytes are not read.

    Args:
        files: the files, all with this column.
        column: its name.
        root: the folder that paths are relative to, and that they may not leave; None for that of each file.
        suffix: is added to each path.
        is_unique: a path that comes again is a problem of its row.
        cache: the folder of unpacked images.
        places: the name of each row, see `name_row`.
        where: the key path of the files, for errors.

    Attributes:
        names: the path of each cell as it is written, with the suffix; None where it has none.
        sizes: the bytes of each, int64 (n,); -1 where it has neither a file nor bytes.
        problems: of cells that can't be used, by row.

    Raises:
        MLScaleError: the column holds neither paths nor bytes; a path is an address, or leaves the folder.
    """

    def __init__(
        self,
        files: Sequence[RowFile],
        column: str,
        *,
        root: Path | None,
        suffix: str,
        is_unique: bool,
        cache: Path,
        places: Sequence[str],
        where: str,
    ) -> None:
        self.column, self._where, self._places = column, where, places
        self._chunks: list[Any] = []
        self._starts: list[int] = []
        self.names: list[str | None] = []
        self._roots: list[Path] = []
        sizes: list[NDArray[np.int64]] = []
        for file in files:
            for stored, names in _read_cells(file, column, cache, where):
                self._starts.append(len(self.names))
                self._chunks.append(stored)
                self.names += [None if name is None else name + suffix for name in names]
                sizes.append(_measure_bytes(stored, len(names)))
                self._roots += [root or file.path.parent] * len(names)
        self.sizes = np.concatenate(sizes) if sizes else np.empty(0, np.int64)
        # By row, so that `data.on_bad_sample` decides about each when it is read.
        self.problems: dict[int, Problem] = {}
        # Where bytes are there, the path is but the name that they had.
        self._has_bytes = self.sizes >= 0
        self._paths = self._find_files()
        if is_unique:
            self._find_repeated()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> tuple[str, bytes]:
        """Return the extension and the bytes of a cell. May be called by several threads.

        Raises:
            OSError: its file can't be read.
        """
        if self._has_bytes[row]:
            number = bisect_right(self._starts, row) - 1
            # A copy of these bytes alone: the rest of the file stays on the disk.
            content = self._chunks[number][row - self._starts[number]].as_py()
        else:
            path = self._paths[row]
            assert path is not None  # callers leave rows with problems alone
            content = Path(path).read_bytes()
        return _choose_extension(self.names[row], content), content

    def read_start(self, row: int, count: int) -> bytes:
        """Return the first bytes of a cell, for the digest of the data; nothing where it can't be read."""
        if row in self.problems:
            return b""
        try:
            if self._has_bytes[row]:
                return self.read(row)[1][:count]
            with open(str(self._paths[row]), "rb") as stream:
                return stream.read(count)
        except OSError:
            return b""

    def list_keys(self) -> list[str]:
        """Return a name for each cell, unique among them: its path, or its row where it has none."""
        keys, seen = [], set[str]()
        for row, (name, position) in enumerate(zip(self.names, self._places, strict=True)):
            path = self._paths[row]
            # Without the folder, which may be another one on another machine.
            key = name or position if path is None else os.path.relpath(path, self._roots[row])
            key = key if key not in seen else f"{key}#{position}"
            seen.add(key)
            keys.append(key)
        return keys

    def get_path(self, row: int) -> str | None:
        """Return the path of a cell's file, which may be missing; None where its bytes are in the table."""
        return self._paths[row]

    def _find_repeated(self) -> None:
        first: dict[str, int] = {}
        for row, path in enumerate(self._paths):
            if path is not None and row not in self.problems and first.setdefault(path, row) != row:
                self.problems[row] = Problem(
                    "is there twice", f"{self._places[first[path]]} has {self.names[row]!r}, too"
                )

    def _find_files(self) -> list[str | None]:
        paths: list[str | None] = [None] * len(self.names)
        outside: list[tuple[int, str]] = []
        for row in np.flatnonzero(~self._has_bytes).tolist():
            name = self.names[row]
            if not name:
                self.problems[row] = Problem("has no image", "the cell is empty")
                continue
            path = _locate_image(name, self._roots[row])
            # Collected: one that leaves the folder is seldom the only one.
            if path is None:
                outside.append((row, name))
                continue
            paths[row] = path
            size = _measure_file(path)
            if isinstance(size, Problem):
                self.problems[row] = size
                continue
            self.sizes[row] = size
        if outside:
            raise self._build_outside_error(outside)
        return paths

    def _build_outside_error(self, outside: Sequence[tuple[int, str]]) -> MLScaleError:
        row, name = outside[0]
        # An address is not a wrong folder, and needs another fix.
        if "://" in name:
            return MLScaleError(
                f"{len(outside):,} of {len(self):,} images are addresses, and not paths",
                where=f"{self._where}: {self._places[row]}, column {self.column!r}",
                why=f"the first: {name!r}; images are read from disks",
                fix="download them, and write the paths; or mlscale.data.TarBackend for shards in an object store",
            )
        return MLScaleError(
            f"{len(outside):,} of {len(self):,} paths leave the folder of the images",
            where=f"{self._where}: {self._places[row]}, column {self.column!r}",
            why=f"the first: {name!r}; the folder is {self._roots[row].absolute()}",
            fix="data.image_root=<a folder that holds all of them>, which paths are relative to",
        )


def _locate_image(name: str, root: Path) -> str | None:
    """Return the absolute path of an image; None for one that leaves the folder, or is an address.

    By the text alone: a symbolic link in the folder may lead out of it, as its owner has made it.
    """
    if "://" in name or "\0" in name:
        return None
    # Joining drops the folder where the name is absolute: it is compared like any other.
    folder = os.path.abspath(root)
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
    return path if folder == os.sep or path.startswith(folder.rstrip(os.sep) + os.sep) else None


def _read_cells(file: RowFile, column: str, cache: Path, where: str) -> list[tuple[pa.Array | None, list[str | None]]]:
    """Return for each chunk of a column its bytes, None where it has none, and its paths."""
    import pyarrow as pa

    kind = file.schema.field(column).type
    # pandas' categories are dictionaries of texts.
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_null(value):
        texts = file.read_columns([column], where).column(column)
        return [(None, [None if name is None else str(name) for name in texts.to_pylist()])]
    if _is_binary(kind):
        chunks = file.open_bytes(column, cache, where).chunks
        return [(chunk, [None] * len(chunk)) for chunk in chunks]
    if _is_image_struct(kind):
        chunks = file.open_bytes(column, cache, where).chunks
        return [_split_struct(chunk) for chunk in chunks]
    raise MLScaleError(
        f"the column {column!r} holds {str(kind)[:100]}, and not images",
        where="data.image_column",
        why="a cell is a path, the bytes of an image file, or a struct of {bytes, path}",
        fix="data.image_column=<a column of paths or bytes>",
    )


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image_struct(kind: Any) -> bool:
    """Return True for a type of structs of the bytes of images, and maybe a path."""
    import pyarrow as pa

    names = {kind.field(number).name for number in range(kind.num_fields)} if pa.types.is_struct(kind) else set()
    return "bytes" in names and _is_binary(kind.field("bytes").type)


def _split_struct(chunk: Any) -> tuple[Any, list[str | None]]:
    # `flatten` and not `field`: of a cell that is null, its parts are null, too.
    parts = dict(zip([field.name for field in chunk.type], chunk.flatten(), strict=True))
    names = parts["path"].to_pylist() if "path" in parts else [None] * len(chunk)
    return parts["bytes"], [None if name is None else str(name) for name in names]


def _measure_bytes(stored: Any, count: int) -> NDArray[np.int64]:
    if stored is None:
        return np.full(count, -1, np.int64)
    from pyarrow import compute

    lengths: NDArray[np.int64] = compute.fill_null(compute.binary_length(stored), -1).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)


def _measure_file(path: str) -> int | Problem:
    """Return the bytes of a file."""
    try:
        status = os.stat(path)
    except OSError as error:
        return Problem("has no image", f"{path!r}: {error.strerror or error}")
    if not stat.S_ISREG(status.st_mode):
        return Problem("has no image", f"{path!r} is not a file")
    return status.st_size


def _choose_extension(name: str | None, content: bytes) -> str:
    """Return the extension that an image is decoded by: never that of a pickle, whatever it is called."""
    # By its first bytes: a cell of bytes need not have a name, and a name may be wrong.
    if suffix := find_image_suffix(content, ""):
        return suffix[1:]
    if content.startswith(_ARRAY):
        return "npy"
    # Of no known format: the decoder of images reports it.
    return name.rpartition(".")[2].lower() if name is not None and is_image_file(name) else "png"
