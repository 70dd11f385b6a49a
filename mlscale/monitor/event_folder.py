"""The folder that events are read from: a wrong one is an error, and not a service without requests."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from mlscale.errors import MLScaleError
from mlscale.report.text import format_duration
from mlscale.runs.identity import make_folder_name

if TYPE_CHECKING:
    from mlscale.events.store import EventStore

_MAX_VERSIONS, _MAX_MODELS = 3, 5


class AbsentEventFolderError(MLScaleError):
    """The folder does not exist: it is mistyped, or its server has not written an event yet."""


def check_event_folder(store: EventStore) -> None:
    """Raise an error if a folder can't be one that servers write events to.

    Raises:
        AbsentEventFolderError: it does not exist.
        MLScaleError: it is a file, or holds something else.
    """
    root = store.root
    # An earlier look at a service without events has left its state there.
    if root.is_dir() and (store.list_models() or any(root.glob("*/monitor")) or not any(root.iterdir())):
        return
    what = f"{root.name} holds no events" if root.exists() else f"no folder {root.name}"
    fix = "events=<the folder that mlscale serve events=… writes to>; a server makes it with its first event"
    # One level too deep, or a folder too high: both are near.
    if (root / "events").is_dir():
        near = root.parent if any((root / "events").glob("*/*.parquet")) else root / "events"
        fix = f"events={near}"
    kind = MLScaleError if root.exists() else AbsentEventFolderError
    raise kind(what, where=str(root.absolute()), why="events are in <folder>/<model>/events/<day>/*.parquet", fix=fix)


def count_other_events(store: EventStore, model: str, version: str, since: datetime | None) -> Counter[str]:
    """Return the number of the latest 10,000 events of a model that are of other versions, by version.

    Args:
        store: of the events.
        model: its name.
        version: that is left out.
        since: the beginning of the window; None: no limit.
    """
    others = Counter(store.read(model, since=since, last=10_000).version.tolist())
    del others[version]
    return others


def describe_absent_events(
    store: EventStore, model: str, version: str, others: Counter[str], now: datetime, source: str = ""
) -> str:
    """Return what the folder of a model holds in place of the events of a version, in words.

    Args:
        store: of the events.
        model: its name.
        version: that has too few events.
        others: the number of events of other versions.
        now: the end of the window.
        source: the place of the events, as the user knows it; the model's folder by default.
    """
    folder = store.root / make_folder_name(model)
    shown = source or str(folder)
    newest = store.read(model, version=version, last=1)
    phrases = [f"{shown} has no event of {version}"]
    if len(newest):
        age = (now.replace(tzinfo=None) - newest.time[0].astype("datetime64[us]").item()).total_seconds()
        phrases = [f"in {shown} the newest of {version} came {format_duration(max(0.0, age))} ago"]
    phrases += [f"{count:,} are of {other}" for other, count in others.most_common(_MAX_VERSIONS)]
    models = store.list_models()
    if models and folder.name not in models:
        phrases.append(f"there are events of {', '.join(models[:_MAX_MODELS])}")
    return ", ".join(phrases)
