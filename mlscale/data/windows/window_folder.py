"""The folder of a window: labelled samples of production, some to train on and some held out.

<window>/train/…       a table, shards or texts, in the format of the data that they are mixed with
<window>/held_out/…    never trained on
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.policy import Policy, normalise_shares
from mlscale.errors import MLScaleError

TRAIN, HELD_OUT = "train", "held_out"
WHERE = "data.windows"
ORIGINAL = "original"
"""The origin of samples that are of no window."""
_WINDOW = "window"


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


def name_windows(policy: Policy) -> list[str]:
    """Return the names of the windows, the latest last: those of their folders."""
    return [Path(window).name for window in policy.windows]


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


def check_old_samples(counts: Sequence[int]) -> None:
    """Raise if old data is to be replayed, and nothing of it is left.

    Args:
        counts: samples of each origin of old data; empty where none is replayed.

    Raises:
        MLScaleError: all of it is of classes that are left out.
    """
    # A mixture with nothing in it would be drawn from for ever.
    if counts and not any(counts):
        raise MLScaleError(
            "nothing of the old data is left",
            where="data.relabelled",
            why="all of it is of the classes that are left out",
            fix="data.replay=0, to train on the window alone",
        )
