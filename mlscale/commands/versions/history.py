"""The history of a model: versions, alias moves, retraining decisions, alerts and checks, from where each is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mlscale.config.names.suggest import find_nearest
from mlscale.errors import MLScaleError
from mlscale.monitor.check_record import SUFFIX, CheckLog, CheckRecord, locate_check_log
from mlscale.report import format_number
from mlscale.retrain.journal import RetrainingCycle, RetrainingJournal, locate_watch_state
from mlscale.runs.identity import make_folder_name
from mlscale.versions import LocalRegistry, Version
from mlscale.versions.aliases import Aliases
from mlscale.versions.version_reference import CHAMPION

RETRAIN_WATCH = "retrain-watch"
"""The name of the checks of `mlscale retrain watch=true`."""
EntryKind = Literal["version", "alias", "retraining", "alert"]


@dataclass(frozen=True)
class HistoryEntry:
    """One event in the life of a model.

    Attributes:
        time: ISO 8601 with its time zone.
        kind: version (published), alias (moved), retraining (a cycle ended) or alert (an incident began or ended).
        version: such as `resnet:v7`.
        text: what happened, in words.
    """

    time: str
    kind: EntryKind
    version: str
    text: str


@dataclass(frozen=True)
class ModelHistory:
    """Everything that is known of a model over time.

    Attributes:
        name: of the model.
        versions: oldest first.
        aliases: with their moves.
        cycles: of retraining, oldest first.
        watched: the reference whose checks are `checks`; '' without any.
        checks: of monitoring, oldest first.
        others: references that have checks of their own.
        alerts: checks of any reference at which an incident began or ended.
    """

    name: str
    versions: Sequence[Version]
    aliases: Aliases
    cycles: Sequence[RetrainingCycle]
    watched: str
    checks: Sequence[CheckRecord]
    others: Sequence[str]
    alerts: Sequence[CheckRecord]

    @property
    def champion(self) -> str | None:
        """The version that is the champion now."""
        number = self.aliases.of.get(CHAMPION)
        return f"{self.name}:v{number}" if number else None

    def list_entries(self) -> list[HistoryEntry]:
        """Return what happened, oldest first."""
        return sorted(self._iterate_entries(), key=lambda entry: parse_time(entry.time))

    def _iterate_entries(self) -> Iterator[HistoryEntry]:
        for version in self.versions:
            run = version.run or {}
            value = f", {run.get('metric')} {format_number(version.value)}" if version.value is not None else ""
            parent = f", trained from {version.parent}" if version.parent else ""
            yield HistoryEntry(version.created, "version", version.ref, f"published{value}{parent}")
        for move in self.aliases.moves:
            before, after = (f"v{number}" if number else "none" for number in (move.before, move.after))
            number = move.after or move.before
            yield HistoryEntry(
                move.time, "alias", f"{self.name}:v{number}", f"{move.act}: {move.alias} {before} → {after}"
            )
        for cycle in self.cycles:
            about = cycle.challenger or cycle.champion
            yield HistoryEntry(cycle.ended or cycle.begun, "retraining", about, f"{cycle.decision}: {cycle.reason}")
        for check in self.alerts:
            for alert in check.alerts:
                text = f"{alert['rule']} {alert['status']}: {alert['sentence']}"
                yield HistoryEntry(check.time, "alert", alert["version"], text)


def collect_history(
    registry: LocalRegistry, name: str, events: Path, *, state: Path | None = None, watched: str | None = None
) -> ModelHistory:
    """Return the history of a model.

    Args:
        registry: of the model; the looks of `mlscale retrain watch=true` are there.
        name: of the model.
        events: the folder of events, which has the checks of monitors.
        state: a monitor's state file that is elsewhere.
        watched: the reference whose checks are wanted; the champion's by default, else those with most checks.

    Raises:
        MLScaleError: no such model, no checks of `watched` or of the model next to `state`, or a file is corrupt.
    """
    versions = registry.list_versions(name) or [registry.resolve_version(name)]  # which raises what there is instead
    files = sorted((events / make_folder_name(name) / "monitor").glob(f"*{SUFFIX}"))
    looks = locate_check_log(locate_watch_state(registry.root, name))
    files.append(looks)
    if state is not None:
        files.append(locate_check_log(state))
    by_file: dict[tuple[str, Path], list[CheckRecord]] = {}
    # A state in the folder of events may be named as well: its checks count once.
    for file in dict.fromkeys(files):
        records = [record for record in CheckLog(file).read_records() if record.model == name]
        if state is not None and file == files[-1] and not records:
            raise MLScaleError(
                f"no checks of {name} next to {state.name}",
                where=f"state={state}",
                why=f"they are in {file.name}, which has none",
                fix="leave state out, or the alert.state= of your monitor",
            )
        for record in records:
            # Apart from those of a monitor of the same reference, which has other rules and times.
            by_file.setdefault((RETRAIN_WATCH if file == looks else record.watched, file), []).append(record)
    checks = _name_checks(by_file)
    chosen = _choose_watched(checks, name, watched)
    alerts = [record for records in checks.values() for record in records if record.alerts]
    return ModelHistory(
        name=name,
        versions=versions,
        aliases=registry.get_aliases(name),
        cycles=RetrainingJournal(registry.root, name).read_cycles(),
        watched=chosen,
        checks=sorted(checks.get(chosen, []), key=lambda record: parse_time(record.time)),
        others=[other for other in checks if other != chosen],
        alerts=alerts,
    )


def parse_time(text: str) -> datetime:
    """Return a stored time; without a zone it is UTC."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _name_checks(by_file: Mapping[tuple[str, Path], list[CheckRecord]]) -> dict[str, list[CheckRecord]]:
    """Return checks by the reference; several logs of one reference are apart, each with the name of its log."""
    counts = Counter(watched for watched, _ in by_file)
    checks: dict[str, list[CheckRecord]] = {}
    for (watched, file), records in by_file.items():
        # Empty for the events of mlscale's own servers, and where a state was named by hand.
        before, _, log = file.name.removesuffix(SUFFIX).partition(f"{make_folder_name(watched)}-")
        is_log = counts[watched] > 1 and log and not before
        checks.setdefault(f"{watched}/{log}" if is_log else watched, []).extend(records)
    return checks


def _choose_watched(checks: dict[str, list[CheckRecord]], name: str, watched: str | None) -> str:
    if watched is None:
        # The champion is what users are served.
        usual = (f"{name}@{CHAMPION}", name)
        return next((key for key in usual if key in checks), max(checks, key=lambda key: len(checks[key]), default=""))
    if watched in checks:
        return watched
    best = find_nearest(watched, checks) or next(iter(checks), None)
    raise MLScaleError(
        f"no checks of '{watched}'",
        where=f"watched={watched}",
        why=f"there are checks of: {', '.join(checks)}" if checks else "monitoring has not checked the model yet",
        fix=f"watched={best}" if best else f"mlscale monitor {name}@{CHAMPION}",
    )
