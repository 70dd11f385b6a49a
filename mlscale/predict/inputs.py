"""Open the inputs to score: files, a folder, tar shards, or tables; in a fixed order, each with a key and a row.

Read the samples of tar shards as inputs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlscale.data.decoding.image_files import IMAGE_EXTENSIONS, is_image_file
from mlscale.data.shards.index_builder import build_index
from mlscale.data.shards.member_decoder import check_extension
from mlscale.data.shards.shard_paths import find_shards
from mlscale.data.shards.system_files import (
    KIND,
    SkippedFiles,
    count_skipped,
    is_system_file,
    is_system_folder,
    match_paths,
    report_skipped,
)
from mlscale.data.table_parsing.table_form import USUAL_FORM, TableForm
from mlscale.errors import MLScaleError
from mlscale.predict.input_items import InputItem, Inputs
from mlscale.predict.input_tables import TEXT_KINDS

TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
_TEXTS, _ARRAYS = frozenset({"txt", "text", "md"}), frozenset({"npy"})
_FILES = {
    "text": ("text", _TEXTS),
    "document": ("text", _TEXTS),
    "tensor": ("array", _ARRAYS),
    "table": ("table", frozenset[str]()),  # which has inputs of its own
}
"""What a file is called, and how its name ends, by the kind of encoder that takes it; images for all others."""


def open_inputs(
    spec: str | Sequence[str],
    *,
    member: str | None,
    key: str | None,
    columns: Sequence[str],
    kind: str = "",
    trained_on: str | None = None,
    form: TableForm = USUAL_FORM,
) -> Inputs:
    """Return the inputs of `spec`: a folder of files, files, tar shards (path, brace pattern, glob, folder), or tables.

    Args:
        spec: as typed, or a list of such.
        member: extension of the member of shards, or the column of a table, that is scored; None finds it.
        key: the column of a table that names its rows; None for file and number.
        columns: the features of a table, in the model's order; empty for all columns of numbers.
        kind: of the model's encoder, which decides what is looked for: 'text' and 'document' take texts, 'tensor' takes
            arrays, 'table' takes columns by name, and the others images.
        trained_on: the column of a table's texts, or the member of shards, that the model was trained on; None where
            it is not known.
        form: how the rows of a 'table' are written.

    Raises:
        MLScaleError: nothing exists there, or it is not an input.
    """
    from mlscale.predict.input_tables import TableInputs

    words = [spec] if isinstance(spec, str) else [str(word) for word in spec]
    if not words or "" in words:
        raise MLScaleError("nothing to score is named", where="input", fix="input=<a folder, shards, or a table>")
    if len(words) == 1 and (folder := Path(words[0]).expanduser()).is_dir():
        names = os.listdir(folder)
        # Shards come first: a folder of them may also have tables, such as one of their labels.
        if any(name.endswith(".tar") for name in names):
            return TarInputs(words, member, kind, trained_on)
        tables = [name for name in sorted(names) if name.lower().endswith(TABLES) and not is_system_file(name)]
        # Which reports what is skipped.
        if tables and not list_files(folder, _get_file_kind(kind)[1]):
            return TableInputs([str(folder / name) for name in tables], member, key, columns, kind, trained_on, form)
        return open_folder(folder, kind)
    # A .json file in a folder may hold anything; one that is named is meant.
    if all(word.lower().endswith((*TABLES, ".json")) for word in words):
        return TableInputs(_expand_paths(words), member, key, columns, kind, trained_on, form)
    if all(word.rpartition(".")[2].lower() in _get_file_kind(kind)[1] for word in words):
        return FileInputs(_expand_paths(words))
    _raise_if_not_shards(words, kind)
    return TarInputs(words, member, kind, trained_on)


def _raise_if_not_shards(words: Sequence[str], kind: str) -> None:
    """Raise an error if a file is named that is not a tar shard.

    Raises:
        MLScaleError: there is one; the fix has what the model takes.
    """
    for word in words:
        path = Path(word).expanduser()
        if path.is_file() and not path.name.endswith(".tar"):
            what, extensions = _get_file_kind(kind)
            # There are twenty kinds of images.
            shown = [".jpg", ".png", "…"] if what == "image" else [f".{extension}" for extension in sorted(extensions)]
            endings = ", ".join(shown)
            tables = "a .csv, .tsv, .parquet, .jsonl or .json file"
            files = "" if kind == "table" else f"{what}s ({endings}), a folder or tar shards of such, or "
            raise MLScaleError(
                f"{path.name} is not a kind of input that the model takes",
                where=f"input={word}",
                why="all that are named have to be of one kind" if len(words) > 1 else f"the model takes {what}s",
                fix=f"input=<{files}{tables}>",
            )


def _get_file_kind(kind: str) -> tuple[str, frozenset[str]]:
    return _FILES.get(kind, ("image", IMAGE_EXTENSIONS))


def list_files(folder: Path, extensions: frozenset[str] = IMAGE_EXTENSIONS, what: str = "") -> list[str]:
    """Return the files below a folder that end so, sorted; links are followed, except into a cycle; hidden files are
    left out.

    Args:
        folder: the folder.
        extensions: in lower case, without the dot.
        what: the files are, such as images, to report how many others were skipped; empty to report none.
    """
    paths = []
    skipped: dict[str, SkippedFiles] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        for name in sorted((*folders, *names)):
            if is_system_file(name) or is_system_folder(name):
                count_skipped(skipped, KIND, Path(parent, name).relative_to(folder).as_posix())
        # In place: os.walk descends into the folders that are left in its list.
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and not is_system_folder(name)
            and not _is_link_cycle(Path(parent, name), folder)
        )
        for name in names:
            path = Path(parent, name).relative_to(folder).as_posix()
            if name.startswith(".") or is_system_file(name):
                continue
            if name.rpartition(".")[2].lower() in extensions:
                paths.append(path)
            elif what:
                count_skipped(skipped, f"skipped files that do not end as {what} do", path)
    report_skipped(skipped, where=f"input={folder}")
    return sorted(paths)


def _is_link_cycle(path: Path, root: Path) -> bool:
    """Return whether a folder is a link to one of its own parents, from `root` down: following it would never end."""
    if not path.is_symlink():
        return False
    through = [parent.resolve() for parent in (*path.parents[: len(path.relative_to(root).parts)], root)]
    return any(parent.is_relative_to(path.resolve()) for parent in through)


class FileInputs:
    """Files, such as those that are named; their keys are their names, or their paths where two have the same name.

    Args:
        paths: of the files, in order.
        keys: other ones.
    """

    def __init__(self, paths: Sequence[str], keys: Sequence[str] = ()) -> None:
        names = keys or [Path(path).name for path in paths]
        self._paths, self._keys = list(paths), names if len(set(names)) == len(names) else list(paths)
        self.digest = _compute_status_digest(list(map(Path, paths)), self._keys)

    def __len__(self) -> int:
        return len(self._paths)

    def read_items(self, rows: range) -> list[InputItem]:
        return [_read_file(Path(self._paths[row]), self._keys[row]) for row in rows]


def open_folder(root: Path, kind: str = "") -> FileInputs:
    """Return the files in a folder and the folders below it; their keys are their paths relative to it.

    Args:
        root: the folder.
        kind: of the encoder; images by default.

    Raises:
        MLScaleError: there are none.
    """
    what, extensions = _get_file_kind(kind)
    names = list_files(root, extensions, f"{what}s")
    if not names:
        taken, fix = f"{what}s, which end in {', '.join(sorted(extensions))}", f"a folder of {what}s, tar shards"
        if kind == "table":
            taken, fix = "the columns of tables, .csv or .parquet", "a folder of tables"
        raise MLScaleError(
            f"no {what} to score",
            where=f"input={root}",
            why=f"the model takes {taken}; others are not looked at",
            fix=f"input=<{fix}, or a table>",
        )
    return FileInputs([str(root / name) for name in names], names)


def _compute_status_digest(paths: Sequence[Path], names: Sequence[str]) -> str:
    """Return the digest of files by name, size and time: one of the content would read every file twice."""
    total = hashlib.sha256(b"folder 1")
    for path, name in zip(paths, names, strict=True):
        try:
            status = os.stat(path)
            about = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError as error:  # a broken link: its row has the error
            about = error.strerror or ""
        total.update(f"{name}\0{about}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _read_file(path: Path, key: str) -> InputItem:
    try:
        return InputItem(key, path.read_bytes(), key.rpartition(".")[2].lower())
    except OSError as error:
        return InputItem(key, b"", error=error.strerror or str(error))


def _expand_paths(words: Sequence[str]) -> list[str]:
    """Return the files that match paths and globs."""
    paths: list[str] = []
    for word in words:
        matched = match_paths(os.path.expanduser(word))  # sorted, as the order gives the rows
        if not matched:
            raise MLScaleError(
                "input not found", where=f"input={word}", fix="input=<an existing file, or a glob of such>"
            )
        paths += matched
    return paths


_MASK = "mask.png"
"""The label of an image that has one for each pixel, as training names it by default; it is an image file itself."""


class TarInputs:
    """The samples of tar shards in the format of webdataset; their keys are shard and key.

    Args:
        spec: paths, brace patterns, globs, folders.
        member: extension of the member that is scored; None for the image, or else an array or text.
        kind: of the encoder: None finds a text for one of texts, an array for one of tensors.
        trained_on: extensions of the members that the model was trained on, joined by ';'; None where not known.

    Raises:
        MLScaleError: a sample has no such member, or several of which it is not clear which one is meant.
    """

    def __init__(self, spec: Sequence[str], member: str | None, kind: str = "", trained_on: str | None = None) -> None:
        self._index = build_index(find_shards(list(spec), where="input"), where="input")
        wanted = self._find_members(member, kind, trained_on)
        # None is allowed that needs pickle: a shard may be from anyone.
        for extension in wanted:
            check_extension(extension, allow=(), where="member")
        self._columns = [self._index.extensions.index(extension) for extension in wanted]
        self._raise_if_unclear(wanted)
        self.digest = self._index.compute_data_version()

    def __len__(self) -> int:
        return len(self._index)

    def read_items(self, rows: range) -> list[InputItem]:
        return [self._read_item(row) for row in rows]

    def _find_members(self, member: str | None, kind: str, trained_on: str | None) -> list[str]:
        """Return the extensions of the members that are scored: of each sample the one that it has.

        Raises:
            MLScaleError: there are none.
        """
        extensions = self._index.extensions
        if member is not None:
            wanted = [member.lower()] if member.lower() in extensions else []
        else:
            trained = [extension for extension in (trained_on or "").lower().split(";") if extension in extensions]
            wanted = trained or self._find_members_of_kind(kind)
        if not wanted:
            raise MLScaleError(
                "the samples have no member to score" if member is None else f"the samples have no member '.{member}'",
                where="input" if member is None else f"member={member}",
                why=f"their members are: {', '.join(f'.{name}' for name in extensions)}",
                fix="member=<one of these>",
            )
        return wanted

    def _find_members_of_kind(self, kind: str) -> list[str]:
        extensions = self._index.extensions
        texts, arrays = ([name for name in extensions if name in taken] for taken in (("txt", "text"), ("npy",)))
        if kind in TEXT_KINDS or kind == "tensor":
            return arrays if kind == "tensor" else texts
        images = [name for name in extensions if is_image_file(name)]
        return [name for name in images if name != _MASK] or images or [*arrays, *texts]

    def _raise_if_unclear(self, wanted: Sequence[str]) -> None:
        """Raise an error if a sample has several members that may be the one to score: as in training, none is guessed.

        Raises:
            MLScaleError: one has.
        """
        counts = (self._index.offsets[:, self._columns] >= 0).sum(axis=1)
        if len(self._columns) > 1 and (counts > 1).any():
            raise MLScaleError(
                "it is not clear which member is scored",
                where="input",
                why=f"sample {self._index.get_sample_name(int(np.argmax(counts > 1)))} has several: "
                f"{', '.join(f'.{name}' for name in wanted)}",
                fix=f"member={min(wanted, key=len)}",
            )

    def _read_item(self, row: int) -> InputItem:
        key = self._index.get_sample_name(row)
        # Samples may differ in format, such as .jpg and .png: the member that this one has. -1 means absent.
        column = next((candidate for candidate in self._columns if self._index.offsets[row, candidate] >= 0), None)
        if column is None:
            return InputItem(key, b"", error="it has no member that is scored")
        try:
            return InputItem(key, self._index.read_member(row, column), self._index.extensions[column])
        except MLScaleError as error:
            return InputItem(key, b"", error=error.why or error.what)
