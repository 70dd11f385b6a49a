"""The state of a monitor between looks, in one file: the state of each rule, and the alerts that have not arrived yet.

The contract 'monitor_state'. One process at a time uses it; a process that is killed never leaves a partial file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from mlscale.atomic_files import IN_FOLDER, make_folders, read_json, report_disk_errors, write_json
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import Exit, MLScaleError
from mlscale.file_locks import hold_lock
from mlscale.monitor.alert_rule import Phase, RuleState

FORMER_RULES = {"damage": "degradation"}
"""Names of rules in state files and settings of earlier versions, and those of today."""
_WAIT_SECONDS = 60.0  # a look with a webhook that does not answer takes less


@dataclass(frozen=True)
class MonitorState:
    """The contents of the state file.

    Attributes:
        version: the version of the last look; '' before the first one.
        looks: the number of looks.
        rules: the state of each rule.
        outbox: alerts that the folders of the recipients do not hold yet, oldest first: documents of the contract
            'alert'. An earlier version kept all here that had not arrived.
        counted: the latest event's time in the last window that counted as evidence of drift, ISO 8601; '' if none.
        corruption: the reason why the file could not be read; '' if it could.
    """

    version: str = ""
    looks: int = 0
    rules: Mapping[str, RuleState] = field(default_factory=dict)
    outbox: tuple[Mapping[str, Any], ...] = ()
    counted: str = ""
    corruption: str = ""


def report_state_errors() -> AbstractContextManager[None]:
    """Return the block whose disk errors name the setting for another path."""
    return report_disk_errors("alert.state", IN_FOLDER)


def load_state(path: Path) -> MonitorState:
    """Return the saved state, or an empty one if there is no file or it is corrupt, so that monitoring continues.

    Raises:
        MLScaleError: it is of a later format.
    """
    if not path.exists():
        return MonitorState()
    try:
        document = read_json(path)
    except MLScaleError as error:
        return MonitorState(corruption=error.why or error.what)
    # Not caught: a later format is an error for the user, not a corrupt file.
    expect_format("monitor_state", document, str(path))
    try:
        return MonitorState(
            str(document["version"]),
            int(document["looks"]),
            dict(_parse_rule_state(str(name), entry) for name, entry in document["rules"].items()),
            tuple(dict(alert) for alert in document["outbox"]),
            str(document.get("counted", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return MonitorState(corruption=f"{type(error).__name__}: {error}")


def save_state(path: Path, memory: MonitorState, now: str) -> None:
    """Write the state, completely or not at all.

    Raises:
        MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
    """
    with report_state_errors():
        write_json(
            path,
            {
                "format": get_format_tag("monitor_state"),
                "version": memory.version,
                "looked": now,
                "looks": memory.looks,
                "rules": {name: asdict(state) for name, state in memory.rules.items()},
                "outbox": list(memory.outbox),
                "counted": memory.counted,
            },
        )


@contextlib.contextmanager
def lock_state(path: Path) -> Iterator[None]:
    """Lock the state inside the block, so that one process looks and sends; the system releases it if the process dies.

    Raises:
        MLScaleError: another process holds the lock for too long, or the folder can't be written to (exit code 5).
    """
    error = MLScaleError(
        "another monitor with the same state is looking",
        where=str(path),
        fix="alert.state=<file>, a state of its own; or end the other process",
        exit=Exit.ENVIRONMENT,
    )
    with contextlib.ExitStack() as stack:
        with report_state_errors():
            make_folders(path.parent)
            # A file of its own: the state file is replaced at each save, and a lock on it would be on the old inode.
            # On a file system without locks two monitors may report the same incident.
            stack.enter_context(hold_lock(path.with_name(f".{path.name}.lock"), error, _WAIT_SECONDS))
        yield


def _parse_rule_state(name: str, entry: Mapping[str, Any]) -> tuple[str, RuleState]:
    """Return the rule's name of today, and its state."""
    current = FORMER_RULES.get(name, name)
    # The end of an incident has the id of its beginning, which holds the name of that time.
    former = name if name != current and entry["phase"] == "firing" else ""
    began_as = str(entry.get("began_as", "")) or former
    state = RuleState(entry["phase"], int(entry["count"]), int(entry["quiet"]), str(entry["since"]), began_as)
    if state.phase not in get_args(Phase):
        raise ValueError(f"a rule is {state.phase!r}")
    return current, state
