"""Arrays in numpy's files, of which any bit may be wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np


def load_arrays(file: str | Path | bytes) -> Any:
    """Return the array of a .npy file, or of its bytes; of a .npz archive a dictionary of its arrays.

    Raises:
        OSError: the file is not found, or may not be read.
        ValueError: it is corrupt, not numpy's, or has objects.
    """
    with io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as stream:
        try:
            # Without pickle: the file may be from anyone, and a pickle executes code.
            loaded = np.load(stream, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        # Of one wrong bit numpy, zipfile, zlib, tokenize and others raise what they like, in words of their own.
        except Exception as error:
            raise ValueError("it is not a whole file of numpy's, or has objects, which need pickle") from error
