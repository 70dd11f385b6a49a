"""What a monitor remembers between looks, in one file: where each rule stands, and alerts that have not arrived yet.

The contract 'monitor_state'. One process at a time looks; the file is whole whenever one is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from mlscale.contracts import expect, stamp
from mlscale.errors import Exit, MLScaleError
from mlscale.files import PRIVATE_FILE, make_folders, read_json, write_json
from mlscale.monitor.alert_rule import Phase, State

_WAIT_SECONDS = 60.0  # a look that has a dead webhook to wait for is done in less
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Memory:
    """What is remembered.

    Attributes:
        version: that was looked at; '' before the first look.
        looks: how many there were.
        rules: where each rule stands.
        outbox: alerts on their way, oldest first: documents of the contract 'alert'.
        damaged: why what was remembered could not be read; '' where it could.
    """

    version: str = ""
    looks: int = 0
    rules: Mapping[str, State] = field(default_factory=dict)
    outbox: tuple[Mapping[str, Any], ...] = ()
    damaged: str = ""


def load(path: Path) -> Memory:
    """What `save` wrote; nothing where there is no file. A damaged one is forgotten: a monitor goes on looking.

    Raises:
        MLScaleError: it is of a later format.
    """
    if not path.exists():
        return Memory()
    try:
        document = read_json(path)
    except MLScaleError as error:
        return Memory(damaged=error.why or error.what)
    expect("monitor_state", document, str(path))
    try:
        return Memory(
            str(document["version"]),
            int(document["looks"]),
            {str(name): _state(entry) for name, entry in document["rules"].items()},
            tuple(dict(alert) for alert in document["outbox"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Memory(damaged=f"{type(error).__name__}: {error}")


def save(path: Path, memory: Memory, now: str) -> None:
    """Write it, whole or not at all.

    Raises:
        MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
    """
    with _named():
        write_json(
            path,
            {
                "format": stamp("monitor_state"),
                "version": memory.version,
                "looked": now,
                "looks": memory.looks,
                "rules": {name: asdict(state) for name, state in memory.rules.items()},
                "outbox": list(memory.outbox),
            },
        )


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Be the only process that looks and tells, inside the block; the system takes that back when the process ends.

    Raises:
        MLScaleError: another one is at it all the time, or the folder can't be written to (exit code 5).
    """
    with _named():
        make_folders(path.parent)
        handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        _take(handle, path)
        yield
    finally:
        os.close(handle)


def _take(handle: int, path: Path) -> None:
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise MLScaleError(
                    "another monitor with the same state is looking",
                    where=str(path),
                    fix="end it, or give this one a state of its own: alert.state=<file>",
                    exit=Exit.ENVIRONMENT,
                ) from error
        except OSError:  # a file system without locks: two monitors may tell the same incident
            return None
        time.sleep(_POLL_SECONDS)


def _state(entry: Mapping[str, Any]) -> State:
    state = State(entry["phase"], int(entry["count"]), int(entry["quiet"]), str(entry["since"]))
    if state.phase not in get_args(Phase):
        raise ValueError(f"a rule is {state.phase!r}")
    return state


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """What the disk refuses, told with the setting that names another place."""
    try:
        yield
    except (OSError, MLScaleError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise MLScaleError(
            "can't write what the monitor remembers",
            where=str(cause.filename or getattr(error, "where", "")),
            why=cause.strerror or str(cause),
            fix="alert.state=<a file in a folder that you may write to>",
            exit=Exit.ENVIRONMENT,
        ) from error
