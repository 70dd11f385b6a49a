"""A job on a platform with its own file system: the files that it starts from, its command, and its variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.launch.cloud.volume_paths import is_below, resolve_runs_dir
from mlscale.secrets.secret_patterns import has_known_format, is_secret_key

START_FILES = ("run.json", "config.yaml", "derived.yaml")
"""Files of the submitted run folder, which every start of the job is like."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_NAME = 40  # characters: pods append to the name, and a label has 63 at most


@dataclass(frozen=True)
class CloudJob:
    """The training of a job, whatever the platform.

    Attributes:
        name: of the job: lower-case letters, digits and dashes.
        run: the submitted run folder, on this machine.
        runs_dir: the folder of the runs on a node.
        nodes: machines.
        devices: processes of each of them.
        uses_gpus: True to request a GPU for each process.
    """

    name: str
    run: Path
    runs_dir: str
    nodes: int
    devices: int
    uses_gpus: bool

    def build_train_words(self, start: str) -> list[str]:
        """Return the words of `mlscale` by which every start trains: like the run in the folder `start` on the node,
        from its latest checkpoint.
        """
        return [
            "train", f"like={start}", f"runs_dir={self.runs_dir}", "resume=auto", "trust=true",
            f"trainer.devices={self.devices}",
        ]  # fmt: skip


def build_job_name(name: str, run_id: str) -> str:
    """Return a name for a run that Kubernetes accepts (RFC 1123): `resnet-1b2c3d4e5f6g`."""
    # The id stays whole: two runs of one name must not become one job.
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: _MAX_NAME - len(run_id) - 1].strip("-")
    return f"{plain or 'run'}-{run_id}" if plain[:1].isalpha() else f"run-{run_id}"


def check_counts(launch: Mapping[str, object], least: Mapping[str, int]) -> Iterator[MLScaleError]:
    """Yield a problem for each setting below its least value."""
    for key, lowest in least.items():
        value = launch[key]
        if not isinstance(value, int) or value < lowest:
            why, fix = f"it is {lowest} or more", f"launch.{key}={max(1, lowest)}"
            yield MLScaleError(f"launch.{key} is {value}", where=f"launch.{key}", why=why, fix=fix)


def check_runs_folder(runs_dir: str, volume: object, volume_path: str, setting: str) -> Iterator[MLScaleError]:
    """Yield a problem for runs that would be lost with their node.

    Args:
        volume: the volume or bucket; None for none.
        volume_path: where it is mounted.
        setting: what sets the volume, to type.
    """
    if not volume:
        yield MLScaleError(
            "the runs would be lost with their node",
            where=setting.partition("=")[0],
            why=f"nothing is mounted at {volume_path}, so a restarted job would find no checkpoint",
            fix=setting,
        )
    elif not is_below(resolve_runs_dir(runs_dir, volume_path), volume_path):
        yield MLScaleError(
            f"the runs would be lost with their node: {runs_dir} is not on the volume",
            where="runs_dir",
            why=f"it is mounted at {volume_path}",
            fix="runs_dir=runs",
        )


def check_variables(names: Sequence[object], environment: Mapping[str, object]) -> Iterator[MLScaleError]:
    """Yield a problem for each name that no variable can have, and for each secret that would be in a file."""
    for name in map(str, (*names, *environment)):
        if not _VARIABLE.fullmatch(name):
            yield MLScaleError(
                f"{name!r} is not the name of a variable",
                where="launch.variables, launch.env",
                why="it has letters, digits and underscores, and does not begin with a digit",
                fix="launch.variables=[WANDB_API_KEY]",
            )
    # Only values that are written into the file: `launch.variables` has names alone.
    for name, value in environment.items():
        if is_secret_key(str(name)) or has_known_format(str(value)):
            yield MLScaleError(
                f"launch.env.{name} would be in a file that others may read",
                where=f"launch.env.{name}",
                why="its name or its format is that of a secret",
                fix=f"launch.variables=[{name}]",
            )


def check_scalars(key: str, values: Mapping[object, object]) -> Iterator[MLScaleError]:
    """Yield a problem for each value of a mapping that has to be a text and is a list, a mapping or nothing."""
    for name, value in values.items():
        if value is None or isinstance(value, Mapping | list | tuple):
            where = f"launch.{key}.{name}"
            why = "a node gets a text for it"
            fix = f"launch.{key}.{name}='<text>'; or leave it out"
            yield MLScaleError(f"{where} is {'empty' if value is None else value}", where=where, why=why, fix=fix)


def check_required(required: Sequence[str], passed: Sequence[str]) -> Iterator[MLScaleError]:
    """Yield a problem for variables that the run's config needs and that the job would not have."""
    if missing := [name for name in required if name not in passed]:
        yield MLScaleError(
            f"the job would lack {', '.join(missing)}",
            where="launch.variables",
            why="the run's config reads them from the environment, and a node has only what the job passes",
            fix=f"launch.variables=[{','.join([*passed, *missing])}]",
        )


def check_texts(launch: Mapping[str, object]) -> Iterator[MLScaleError]:
    """Yield a problem for each setting with a control character."""
    for key, value in launch.items():
        items = [*value, *value.values()] if isinstance(value, Mapping) else value
        texts = items if isinstance(items, list | tuple) else [items]
        if any(isinstance(text, str) and not text.isprintable() for text in texts):
            yield MLScaleError(
                f"launch.{key} has a line feed or another control character",
                where=f"launch.{key}",
                why="each setting is one line",
                fix=f"launch.{key}=<one line>",
            )
