"""The settings `events=<files>` and `mapping=` of `mlscale monitor`: events that another server has logged."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.errors import MLScaleError
from mlscale.runs.identity import make_folder_name

if TYPE_CHECKING:
    from mlscale.data.encoders.encoder import Encoder
    from mlscale.events.event_rows import EventSubject
    from mlscale.events.foreign.log_rows import LogReport
    from mlscale.events.store import EventStore
    from mlscale.versions.trained_model import TrainedModel

_LISTED = 5  # files in a message
_WEEKS = timedelta(weeks=5)  # of events before the window: the same hours of earlier weeks


@dataclass(frozen=True)
class ConvertedLog:
    """The events of a log.

    Attributes:
        store: of its events and labels.
        report: what was read, and what could not be.
        is_mapped: returns True for a column that the mapping gives.
        skipped: names of files beside it that look like logs.
    """

    store: EventStore
    report: LogReport
    is_mapped: Callable[[str], bool]
    skipped: Sequence[str] = ()

    def describe_losses(self, start: datetime | None) -> str:
        """Return what is missing in words: rows and files that can't be read, and where all rows are too old; '' if
        nothing."""
        newest = self.report.newest
        parts = [self.report.describe_losses()]
        if self.skipped:
            more = ", …" if len(self.skipped) > _LISTED else ""
            parts.append(f"not read, for their ending: {', '.join(self.skipped[:_LISTED])}{more}")
        if newest is not None and start is not None and newest < start:
            parts.append(f"the newest row is of {newest:%Y-%m-%d %H:%M} UTC: window.hours=null takes all")
        return "; ".join(filter(None, parts))


@dataclass
class ForeignLog:
    """A log of another server, converted to events in a temporary folder.

    Attributes:
        path: a file, a folder or a glob.
        mapping: the YAML file.
    """

    path: Path
    mapping: str
    _remove: Callable[[], object] | None = field(default=None, repr=False)
    _converted: tuple[object, ConvertedLog] | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """The folder of the files, next to which a monitor keeps its state."""
        return next(path for path in (self.path, *self.path.parents) if path.is_dir())

    def build_state_suffix(self) -> str:
        """Return the part of a state file's name that differs between the logs of one folder."""
        # Relative to the folder, in which the state is: both may be moved together.
        name = self.path.relative_to(self.folder).as_posix()
        # Names that are alike without their special characters, such as a.* and a, stay apart.
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return f"{make_folder_name('log' if name == '.' else name)[:40]}-{digest}"

    def convert_events(self, model: TrainedModel, start: datetime | None) -> ConvertedLog:
        """Return the events of the log.

        Args:
            model: whose version is monitored.
            start: the earliest time that counts.

        Raises:
            MLScaleError: a wrong path or mapping, or a file that can't be read.
        """
        from mlscale.events.foreign.convert_log import LogConverter
        from mlscale.events.foreign.event_mapping import read_mapping
        from mlscale.events.foreign.log_files import find_log_files, list_skipped_files
        from mlscale.events.store import EventStore

        files, mapping = find_log_files(self.path), Path(self.mapping).expanduser().absolute()
        given = read_mapping(mapping)
        # A watch converts again only when a file has changed: the start moves on, and older rows do no harm.
        key = (model.version, *((path, path.stat().st_mtime_ns, path.stat().st_size) for path in (*files, mapping)))
        if self._converted is None or self._converted[0] != key:
            subject, encoder = _read_subject(model)
            converter = LogConverter(given, model.name, subject, encoder, str(mapping))
            if self._remove is not None:  # the events of the files as they were
                self._remove()
            folder = tempfile.mkdtemp(prefix="mlscale-events-")
            # Removed with this object or at the end of the process, also after an error or a signal to end.
            self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            store = EventStore(folder)
            report = converter.convert_files(files, store, None if start is None else start - _WEEKS)
            self._converted = (key, ConvertedLog(store, report, converter.is_mapped, list_skipped_files(self.path)))
        return self._converted[1]


def find_foreign_log(events: Path, mapping: str | None) -> ForeignLog | None:
    """Return the log of another server that `events` names; None for the folder of events of mlscale's own servers.

    Raises:
        MLScaleError: it is a file, and the mapping is missing.
    """
    if mapping is not None:
        return ForeignLog(events, mapping)
    if events.is_file() or any(character in events.name for character in "*?["):
        raise MLScaleError(
            f"{events.name} is not a folder of events",
            where=f"events={events}",
            why="what another server has logged needs a mapping of its columns",
            fix="mapping=<a YAML file>, at least with time: <column> and prediction: <column>; docs/monitor.md has one",
        )
    return None


def _read_subject(model: TrainedModel) -> tuple[EventSubject, Encoder]:
    from mlscale.export.event_subject import read_event_subject

    assert model.servable is not None
    return read_event_subject(model.servable, model.version, "log")
