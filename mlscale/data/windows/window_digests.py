"""Digests of the labelled samples of a window, by which a later cycle leaves out what the window holds.

<window>/digests.npy    one of each sample with its label, of both parts
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import make_folders

_FILE = "digests.npy"


def write_window_digests(window: Path, digests: NDArray[np.uint64]) -> None:
    """Write the digests of the labelled samples of a window, uint64 (n,)."""
    make_folders(window)
    np.save(window / _FILE, digests, allow_pickle=False)


def read_window_digests(windows: Iterable[str | Path]) -> set[int]:
    """Return the digests of the labelled samples of several windows."""
    files = [Path(window).expanduser() / _FILE for window in windows]
    # Windows of earlier versions have none.
    return {digest for file in files if file.is_file() for digest in np.load(file, allow_pickle=False).tolist()}
