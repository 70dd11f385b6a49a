"""The settings of a job on SLURM: read from plain values, all problems reported together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlscale.errors import MLScaleError, raise_all
from mlscale.launch.node_devices import check_devices

_TIME_LIMIT = re.compile(r"(\d+-\d+(:\d+){0,2}|\d+(:\d+){0,2}|UNLIMITED|INFINITE)", re.IGNORECASE)
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_COUNTS = {"nodes": 1, "grace_s": 1, "max_requeues": 0, "max_failures": 1}
# Options that mlscale sets itself, and the key that sets each; None for those that nothing else may set.
_OWN_OPTIONS: Mapping[str, str | None] = {
    "nodes": "launch.nodes", "ntasks-per-node": "trainer.devices", "ntasks": "trainer.devices", "array": "launch.array",
    "partition": "launch.partition", "account": "launch.account", "qos": "launch.qos", "time": "launch.time",
    "mem": "launch.mem", "cpus-per-task": "launch.cpus", "gres": "launch.gres", "constraint": "launch.constraint",
    "signal": "launch.grace_s", "job-name": "name", "output": None, "error": None, "open-mode": None, "chdir": None,
    "requeue": None, "no-requeue": None, "hold": None, "export": None, "wrap": None, "parsable": None, "wait": None,
}  # fmt: skip


@dataclass(frozen=True)
class SlurmSettings:
    """The settings of `launch=slurm`, as conf/launch/slurm.yaml describes them.

    Attributes:
        devices: processes of a node.
        uses_gpus: True to request a GPU for each process, where `gres` is not set.
    """

    devices: int
    uses_gpus: bool
    nodes: int = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | int | None = None
    mem: str | int | None = None
    cpus: int | None = None
    gres: str | None = None
    constraint: str | None = None
    directives: Mapping[str, Any] = field(default_factory=dict)
    modules: Sequence[str] = ()
    setup: Sequence[str] = ()
    python: str | None = None
    container: str | None = None
    container_runtime: str = "pyxis"
    container_mounts: Sequence[str] = ()
    srun: Sequence[str] = ()
    array: int | None = None
    grace_s: int = 120
    max_requeues: int = 50
    max_failures: int = 3
    dry_run: bool = False

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return self.nodes * self.devices


def read_slurm_settings(launch: Mapping[str, Any], devices: object, accelerator: str) -> SlurmSettings:
    """Return the settings of a job.

    Args:
        launch: the values of the group `launch`.
        devices: `trainer.devices`.
        accelerator: `trainer.accelerator`.

    Raises:
        MLScaleError: everything that is wrong with them, reported together.
    """
    known = SlurmSettings.__dataclass_fields__.keys() - {"devices", "uses_gpus"}
    values = {name: value for name, value in launch.items() if name in known}
    raise_all([*_find_problems(values), *check_devices(devices)])
    assert isinstance(devices, int | str)
    return SlurmSettings(int(devices), accelerator not in ("cpu", "mps"), **values)


def _find_problems(values: Mapping[str, Any]) -> Iterator[MLScaleError]:
    for key, least in _COUNTS.items():
        if key in values and values[key] < least:
            yield _make_problem(key, f"launch.{key} is {values[key]}", f"it is {least} or more", str(least or 50))
    for key in ("cpus", "array"):
        if values.get(key) is not None and values[key] < 1:
            yield _make_problem(key, f"launch.{key} is {values[key]}", "it is 1 or more", "4")
    limit = values.get("time")
    if limit is not None and not _TIME_LIMIT.fullmatch(str(limit)):
        why = "SLURM writes time limits as minutes, hours:minutes:seconds or days-hours:minutes:seconds"
        yield _make_problem("time", f"launch.time is {limit!r}", why, "04:00:00")
    if limit is not None and (seconds := parse_time_limit(str(limit))) and seconds <= values.get("grace_s", 0):
        what = f"a time limit of {seconds} s leaves no time before the job saves"
        yield _make_problem("grace_s", what, f"it saves {values['grace_s']} s ahead of it", str(max(1, seconds // 4)))
    yield from _check_directives(values.get("directives") or {})
    yield from _check_plain_texts(values)


def parse_time_limit(limit: str) -> int | None:
    """Return a time limit of SLURM in seconds; None for an unlimited one, and for what is not a time limit."""
    days, dash, rest = limit.partition("-")
    if not dash:
        days, rest = "0", limit
    parts = rest.split(":")
    if not days.isdigit() or not all(part.isdigit() for part in parts) or len(parts) > 3:
        return None
    numbers = [int(part) for part in parts]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) < 3:  # minutes[:seconds]
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    else:
        hours, minutes, seconds = numbers
    return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds


def _check_directives(directives: Mapping[str, Any]) -> Iterator[MLScaleError]:
    for name in map(str, directives):
        if not _OPTION.fullmatch(name):
            why = "an option of sbatch is written without its dashes, in lower case"
            fix = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-") or "exclusive"
            yield _make_problem("directives", f"{name!r} is not an option of sbatch", why, f"{{{fix}: …}}")
        elif name in _OWN_OPTIONS:
            setter = _OWN_OPTIONS[name]
            yield MLScaleError(
                f"--{name} is not set by launch.directives",
                where=f"launch.directives.{name}",
                why=f"{setter} sets it" if setter else "mlscale sets it, so that the job can save and be requeued",
                fix=f"{setter}={directives[name]}" if setter else f"leave {name} out",
            )
        elif full := _find_abbreviated(name):
            # sbatch takes abbreviations, by which an option of mlscale's could be set a second time.
            why = f"sbatch reads --{name} as --{full}, which mlscale sets itself"
            yield _make_problem("directives", f"{name!r} is not the whole name of an option", why, "{<option>: …}")
        elif isinstance(directives[name], Mapping):
            why = "the value of an option is a text, a number, true, or a list of them"
            yield _make_problem(f"directives.{name}", f"launch.directives.{name} is a mapping", why, "<text>")


def _find_abbreviated(name: str) -> str:
    """Return the option that mlscale sets itself and that sbatch may take `name` for; empty without one."""
    return next((option for option in _OWN_OPTIONS if option.startswith(name)), "")


def _check_plain_texts(values: Mapping[str, Any]) -> Iterator[MLScaleError]:
    """Yield a problem for each value with a control character: a line feed would begin a directive of its own."""
    for key, value in values.items():
        named = value.items() if isinstance(value, Mapping) else [("", value)]
        for name, item in named:
            texts = item if isinstance(item, list | tuple) else [item]
            if any(isinstance(text, str) and not text.isprintable() for text in texts):
                where = f"launch.{key}.{name}" if name else f"launch.{key}"
                yield MLScaleError(
                    f"{where} has a line feed or another control character",
                    where=where,
                    why="the job script has a line for each setting",
                    fix="launch.setup=['first line','second line']" if key == "setup" else f"{where}=<one line>",
                )


def _make_problem(key: str, what: str, why: str, value: str) -> MLScaleError:
    return MLScaleError(what, where=f"launch.{key}", why=why, fix=f"launch.{key}={value}")
