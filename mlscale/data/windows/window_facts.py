"""Facts of samples of production that their stored form no longer shows: the size of a photo before it was resized,
the length of a text before it was cut.

    <window>/held_out_facts.npz    of the held-out part, in its order: a challenger's reference profile is made of it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import make_folders
from mlscale.data.windows.window_folder import HELD_OUT

SampleFacts = Mapping[str, NDArray[np.float64]]
"""Facts by name, float64 (n,), NaN where one is not known; see `EncodedSamples.facts`."""


def write_window_facts(window: Path, facts: SampleFacts) -> None:
    """Write the facts of the held-out samples of a window; nothing where there are none."""
    if facts:
        make_folders(window)
        np.savez(_locate_facts(window), **facts)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one


def read_window_facts(window: str | Path, names: Sequence[str], rows: NDArray[np.int64]) -> SampleFacts:
    """Return facts of held-out samples, NaN where the window has none.

    Args:
        window: its folder.
        names: of the facts.
        rows: numbers of the samples in the held-out part, (n,).
    """
    file = _locate_facts(Path(window).expanduser())
    known: SampleFacts = {}
    # Windows of earlier versions have none.
    if file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            known = {name: np.asarray(stored[name], np.float64) for name in stored.files}
    return {name: known[name][rows] if name in known else np.full(len(rows), np.nan) for name in names}


def _locate_facts(window: Path) -> Path:
    # Next to the folder of the part, whose files are all samples.
    return window / f"{HELD_OUT}_facts.npz"
