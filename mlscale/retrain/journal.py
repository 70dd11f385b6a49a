"""The journal of a model's retraining cycles ('turns'): one line each, appended at the end. The contract 'turn'.

    <root>/retrain/resnet.jsonl              the decision of every cycle, with its metrics
    <root>/retrain/resnet/1s3397h09a01/      a cycle: turn.json with its progress, and the shards of its window

A cycle that was killed has a folder and no line. The next cycle writes its line; the registry shows if its challenger
was promoted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlscale.atomic_files import (
    ASIDE,
    append_line,
    convert_to_json,
    make_folders,
    read_json,
    remove_tree,
    write_json,
)
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.file_locks import hold_lock
from mlscale.runs.identity import generate_id, get_current_time

PROMOTED, REJECTED, REVIEW, TOO_FEW, OVERTAKEN = "promoted", "rejected", "review", "too few", "overtaken"
FAILED, INTERRUPTED = "failed", "interrupted"
RUNNING = "running"  # in turn.json only: the journal has turns that have ended
_RECORD = "turn.json"


@dataclass(frozen=True)
class RetrainingCycle:
    """One retraining cycle.

    Attributes:
        id: 12 characters that sort by time.
        model: its name.
        champion: the version to improve on.
        begun, ended: ISO 8601 with the time zone.
        decision: promoted, rejected, review (a person has to decide), too few (labels), overtaken (another champion was
            promoted meanwhile), failed, or interrupted.
        reason: the reason in words.
        challenger: the new version; None where none was made.
        run: id and path of its training run.
        data_version: digest of the index of its training data, the window's shards included.
        window: times and counts; see `Window.document`.
        figures: the metrics, name_unit to value.
    """

    id: str
    model: str
    champion: str
    begun: str
    ended: str = ""
    decision: str = RUNNING
    reason: str = ""
    challenger: str | None = None
    run: Mapping[str, str] | None = None
    data_version: str | None = None
    window: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)

    def build_journal_record(self) -> dict[str, Any]:
        """Return the cycle as a line of the journal."""
        written: dict[str, Any] = convert_to_json({"format": get_format_tag("turn"), **asdict(self)})
        return written

    @classmethod
    def parse_record(cls, document: Mapping[str, Any], where: str) -> RetrainingCycle:
        """Return the cycle that was saved as `document`.

        Raises:
            MLScaleError: it is corrupt, or of a later format.
        """
        expect_format("turn", document, where)
        try:
            return cls(**{name: document[name] for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise MLScaleError(
                "the record of a retraining cycle is corrupt",
                where=where,
                why=f"it has no {error}",
                fix=f"restore it from a copy of {where}",
            ) from error


class RetrainingJournal:
    """The retraining cycles of one model.

    Args:
        root: of the registry.
        model: its name.
    """

    def __init__(self, root: Path, model: str) -> None:
        self.path = root / "retrain" / f"{model}.jsonl"
        self.folder = root / "retrain" / model
        self._model = model

    @contextmanager
    def lock_journal(self) -> Iterator[None]:
        """Lock the journal inside the block: one cycle of a model at a time.

        Raises:
            MLScaleError: another process holds the lock.
        """
        make_folders(self.folder)
        error = MLScaleError(
            f"another process is retraining {self._model}",
            where=str(self.folder),
            why="two cycles at once would compare with the same champion, and one would be for nothing",
            fix="wait until it has ended",
        )
        # No waiting: a second cycle would train against a champion that the first one may replace.
        with hold_lock(self.folder / ".lock", error):
            yield

    def read_cycles(self) -> list[RetrainingCycle]:
        """Return the cycles that have ended, oldest first; lines that are cut short are skipped.

        Raises:
            MLScaleError: a line is corrupt in another way, or of a later format.
        """
        cycles = []
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
        for number, line in enumerate(text.splitlines(), 1):
            try:
                document = json.loads(line)
            except ValueError:  # a line that a power cut has cut short
                continue
            if isinstance(document, dict):
                cycles.append(RetrainingCycle.parse_record(document, f"{self.path}, line {number}"))
        return cycles

    def begin_cycle(self, champion: str) -> RetrainingCycle:
        """Create a new cycle and its folder."""
        cycle = RetrainingCycle(generate_id(), self._model, champion, get_current_time())
        make_folders(self.get_cycle_folder(cycle))
        self.save_progress(cycle)
        return cycle

    def get_cycle_folder(self, cycle: RetrainingCycle) -> Path:
        """Return the folder of a cycle."""
        return self.folder / cycle.id

    def save_progress(self, cycle: RetrainingCycle) -> None:
        """Save the progress of a cycle in its folder."""
        write_json(self.get_cycle_folder(cycle) / _RECORD, cycle.build_journal_record())

    def record_cycle(self, cycle: RetrainingCycle, *, keep: bool) -> None:
        """Append a cycle that has ended; it is on disk when this returns.

        Args:
            cycle: with its decision.
            keep: keep its folder, which runs and versions refer to.
        """
        # The record in the folder first: a process that is killed before the line is written is found by
        # `recover_cycles`.
        self.save_progress(cycle)
        append_line(self.path, json.dumps(cycle.build_journal_record(), ensure_ascii=False, allow_nan=False))
        if not keep:
            remove_tree(self.get_cycle_folder(cycle))

    def discard_cycle(self, cycle: RetrainingCycle) -> None:
        """Remove a cycle that has begun and done nothing: the journal has no line of it."""
        remove_tree(self.get_cycle_folder(cycle))

    def read_killed_cycles(self) -> list[RetrainingCycle]:
        """Return the cycles that were killed, as far as they came, oldest first. Only inside `lock_journal`."""
        known = {cycle.id for cycle in self.read_cycles()}
        folders = (folder for folder in sorted(self.folder.iterdir()) if folder.is_dir() and folder.name not in known)
        records = (read_record(folder) for folder in folders if not folder.name.startswith(ASIDE))
        return [cycle for cycle in records if cycle is not None and cycle.decision == RUNNING]

    def recover_cycles(
        self, is_promoted: Callable[[RetrainingCycle], bool], *, without: str | None = None
    ) -> list[RetrainingCycle]:
        """Write the lines of cycles that were killed, clean up, and return these cycles. Only inside `lock_journal`.

        Args:
            is_promoted: returns whether the challenger of a cycle was promoted in it.
            without: the id of a killed cycle that is continued.
        """
        known = {cycle.id: cycle for cycle in self.read_cycles()}
        recovered = []
        for folder in sorted(self.folder.iterdir()):
            ended_cycle = known.get(folder.name)
            if folder.is_dir() and (
                folder.name.startswith(ASIDE) or (ended_cycle is not None and ended_cycle.run is None)
            ):
                remove_tree(folder)
            elif folder.is_dir() and folder.name not in known and folder.name != without:
                recovered += self._recover_cycle(folder, is_promoted)
        return recovered

    def _recover_cycle(self, folder: Path, is_promoted: Callable[[RetrainingCycle], bool]) -> list[RetrainingCycle]:
        cycle = read_record(folder)
        if cycle is None:
            remove_tree(folder)
            return []
        if cycle.decision == RUNNING:
            done = cycle.challenger is not None and is_promoted(cycle)
            cycle = replace(
                cycle,
                ended=get_current_time(),
                decision=PROMOTED if done else INTERRUPTED,
                reason="all gates passed" if done else "the process was killed",
            )
        self.record_cycle(cycle, keep=cycle.run is not None)
        return [cycle]


def locate_watch_state(root: Path, model: str) -> Path:
    """Return the file with the incidents of `mlscale retrain watch=true`, next to the journal."""
    return root / "retrain" / f"{model}.watch.json"


def read_record(folder: Path) -> RetrainingCycle | None:
    """Return the cycle of a folder; None if it was killed before its record was written."""
    try:
        return RetrainingCycle.parse_record(read_json(folder / _RECORD), str(folder / _RECORD))
    except MLScaleError:
        return None
