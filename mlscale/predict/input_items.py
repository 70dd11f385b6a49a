"""One stored input of batch scoring, and the interface of every kind of inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
