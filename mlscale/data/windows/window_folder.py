"""The folder of a window: labelled samples of production, some to train on and some held out.

<window>/train/…       a table, shards or texts, in the format of the data that they are mixed with
<window>/held_out/…    never trained on

By the digests a later cycle leaves out what the window holds:

    <window>/digests.npy    one of each sample with its label, of both parts

The facts are what the stored form does not show: the size of a photo before it was resized, the length of a text
before it was cut.

    <window>/held_out_facts.npz    of the held-out part, in its order: a challenger's reference profile is made of it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlscale.array_files import load_arrays
from mlscale.atomic_files import make_folders, suggest_restore
from mlscale.data.order.policy import Policy, normalise_shares
from mlscale.errors import MLScaleError

TRAIN, HELD_OUT = "train", "held_out"
WHERE = "data.windows"
ORIGINAL = "original"
"""The origin of samples that are of no window."""
_WINDOW = "window"
Part = TypeVar("Part")


def locate_window_part(window: str | Path, part: str) -> Path:
    """Return the folder of a part.

    Args:
        window: the folder of the window.
        part: train or held_out.

    Raises:
        MLScaleError: it does not exist.
    """
    folder = Path(window).expanduser().absolute() / part
    if not folder.is_dir():
        raise MLScaleError(
            f"the window {str(folder.parent)!r} has no folder {part}",
            where=WHERE,
            why="a retraining cycle has written its samples there, which a model was trained on",
            fix=f"restore {folder} from a copy, or leave the window out of data.windows",
        )
    return folder


def arrange_windows(
    policy: Policy,
    original: Mapping[str, Part],
    read: Callable[[Path], Part],
    drop: Callable[[Part], Part],
    count: Callable[[Part], int],
) -> dict[str, list[tuple[str, Part]]]:
    """Return the splits of a retraining, each as parts by their origin: all training data, the latest window last; its
    held-out part as validation data; what was held out before, which must not be forgotten, as test data.

    Args:
        policy: with the windows.
        original: the splits of the original data.
        read: returns what the folder of a part holds.
        drop: returns an old part without the samples that do not count, as their classes have been relabelled.
        count: returns the number of samples of a part.

    Raises:
        MLScaleError: old data is to be replayed, and all of it is of classes that are left out.
    """

    def read_all(part: str) -> list[tuple[str, Part]]:
        return [(Path(window).name, read(locate_window_part(window, part))) for window in policy.windows]

    *trained, newest = read_all(TRAIN)
    *held_before, held_out = read_all(HELD_OUT)
    # The latest window is not old: its share of the epoch is what replay leaves.
    old = [(ORIGINAL, original["train"]), *trained] if policy.replay_share else []
    old = [(name, drop(part)) for name, part in old]
    # A mixture with nothing in it would be drawn from for ever.
    if old and not any(count(part) for _, part in old):
        raise MLScaleError(
            "nothing of the old data is left",
            where="data.relabelled",
            why="all of it is of the classes that are left out",
            fix="data.replay=0, to train on the window alone",
        )
    # Checkpoints are chosen by what production is now; the test data show what was forgotten.
    return {"train": [*old, newest], "val": [held_out], "test": [(ORIGINAL, original["val"]), *held_before]}


def name_origin(part: str) -> str:
    """Return whether a part is original data or a window, for digests: the same in every folder."""
    return part if part == ORIGINAL else _WINDOW


def compute_window_mix(
    policy: Policy, old: int, newest: int, left_out: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return sizes and shares of old samples and of the latest window's; None where there are no old ones.

    Args:
        policy: with the share of old samples.
        old: the number of old samples, those of earlier windows among them.
        newest: the number of samples of the latest window.
        left_out: the number of further old samples that do not count, as their classes have been relabelled.
    """
    if not old:
        return None
    replay = policy.replay_share
    if left_out:
        # An old sample is drawn as often as before: few that are left, all of the other classes, would otherwise fill
        # most of each batch, and the model would predict these classes everywhere.
        weight = replay * old / (old + left_out)
        # In hundredths: exact shares would make a pattern that is too long.
        replay = max(0.01, round(weight / (weight + 1 - replay), 2))
    mix = {"replay": replay, "window": round(1 - replay, 6)}
    return np.array([old, newest], np.int64), normalise_shares(mix, mix)


def find_class_numbers(names: Sequence[str], classes: Sequence[str] | None, count: int) -> NDArray[np.int64]:
    """Return the numbers of classes by their names, int64 (n,).

    Args:
        names: of the classes.
        classes: of all classes by number; None where numbers are their names.
        count: how many classes there are.

    Raises:
        MLScaleError: there is no such class.
    """
    known = list(classes) if classes is not None else list(map(str, range(count)))
    if unknown := [name for name in map(str, names) if name not in known]:
        raise MLScaleError(
            f"unknown class {unknown[0]!r}",
            where="data.relabelled",
            why=f"the data has {', '.join(known[:20])}{', …' if len(known) > 20 else ''}",
            fix=f"data.relabelled=[{known[0]}]" if known else "data.relabelled=[]",
        )
    return np.array(sorted(known.index(str(name)) for name in names), np.int64)


_FILE = "digests.npy"


def read_window_arrays(file: Path) -> Any:
    """Return what `load_arrays` does.

    Raises:
        MLScaleError: the file is absent or corrupt.
    """
    try:
        return load_arrays(file)
    except (OSError, ValueError) as error:
        what, fix = "a file of a window can't be read", suggest_restore(file)
        raise MLScaleError(what, where=f"{WHERE}: {file}", why=str(error), fix=fix) from error


def write_window_digests(window: Path, digests: NDArray[np.uint64]) -> None:
    """Write the digests of the labelled samples of a window, uint64 (n,)."""
    make_folders(window)
    np.save(window / _FILE, digests, allow_pickle=False)


def read_window_digests(windows: Iterable[str | Path]) -> set[int]:
    """Return the digests of the labelled samples of several windows."""
    files = [Path(window).expanduser() / _FILE for window in windows]
    # Windows of earlier versions have none.
    return {digest for file in files if file.is_file() for digest in read_window_arrays(file).tolist()}


GROUP = "group"
"""The fact that is the number of a sample's group, such as its user."""
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
        known = {name: np.asarray(values, np.float64) for name, values in read_window_arrays(file).items()}
    return {name: known[name][rows] if name in known else np.full(len(rows), np.nan) for name in names}


def _locate_facts(window: Path) -> Path:
    # Next to the folder of the part, whose files are all samples.
    return window / f"{HELD_OUT}_facts.npz"
