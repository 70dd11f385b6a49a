"""The outputs of documents from those of their windows: one function, so that every server gives the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sum_windows(outputs: Mapping[str, NDArray[Any]], counts: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return `nats`, float32, and `tokens` of documents, (n,) each.

    Args:
        outputs: both of all windows, those of a document together.
        counts: the windows of each document, at least one.
    """
    starts = np.cumsum(counts) - counts
    # Summed in float64: a document may have thousands of windows.
    nats = np.add.reduceat(outputs["nats"].astype(np.float64), starts) if len(counts) else np.zeros(0)
    tokens = np.add.reduceat(outputs["tokens"], starts) if len(counts) else np.zeros(0, np.int64)
    return {"nats": nats.astype(np.float32), "tokens": tokens}
