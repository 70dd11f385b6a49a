"""One stored input of batch scoring, and the interface of every kind of inputs.

Choose the column of a table that a model of images or texts scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.runs.recover import CONFIG, read_yaml_values


@dataclass(frozen=True, eq=False)
class InputItem:
    """One input as it is stored.

    Attributes:
        key: its name.
        content: the bytes of a file or member, a text, or a row of numbers, float64 (features,).
        extension: of a file or member, without the dot; empty for other content.
        error: the reason why it could not be read; empty if it was.
    """

    key: str
    content: bytes | str | NDArray[np.float64]
    extension: str = ""
    error: str = ""


class Inputs(Protocol):
    """Inputs with random access, in an order that is the same on every machine."""

    @property
    def digest(self) -> str:
        """The digest of all inputs: it changes if one is added, removed or changed."""

    def __len__(self) -> int: ...

    def read_items(self, rows: range) -> list[InputItem]:
        """Return the inputs of these rows. May be called by several threads."""


def compute_files_digest(paths: Sequence[str], extra: object) -> str:
    """Return the digest of files by their content, and of `extra`."""
    # With names, as keys contain them; without folders, so that files may be moved together.
    total = hashlib.sha256(repr(extra).encode())
    for path in paths:
        with open(path, "rb") as file:
            # A zero byte ends the name, which can't hold one: no two lists of files give the same bytes.
            total.update(Path(path).name.encode("utf-8", "surrogateescape") + b"\0")
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


_USUAL_NAMES = ("image", "img", "text", "bytes", "path", "file", "filename")


def choose_scored_column(of_bytes: Sequence[str], texts: Sequence[str], *, where: str, fix: str) -> str | None:
    """Return the only column of bytes, else the text column with a usual name, else the only text column; None if there
    is none.

    Args:
        of_bytes: names of the columns of bytes.
        texts: names of those of text.
        where: the table, for errors.
        fix: what to type, with {} for a column's name.

    Raises:
        MLScaleError: several columns of bytes, or of text with a usual name.
    """
    for names in (of_bytes, [name for name in texts if name.lower() in _USUAL_NAMES], texts):
        if len(names) == 1:
            return names[0]
        # Texts of any name are often remarks: with several of them the table is one of numbers to `predict`.
        if len(names) > 1 and names is not texts:
            raise MLScaleError(
                "it is not clear which column is scored", where=where, why=", ".join(names), fix=fix.format(names[0])
            )
    return None


def read_trained_column(home: Path | None) -> str | None:
    """Return the column of texts, or the members of shards joined by ';', that a run was trained on.

    None where its data names none, or the run does not exist.

    Args:
        home: the folder of the run.
    """
    if home is None:
        return None
    data = read_yaml_values(home / CONFIG).get("data")
    column = data.get("text") or data.get("image_key") if isinstance(data, Mapping) else None
    return column if isinstance(column, str) else None
