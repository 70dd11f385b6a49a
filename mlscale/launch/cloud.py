"""A job on a platform with its own file system, and the commands of its client: of Kubernetes and SkyPilot."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeVar

import yaml

from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.launch.node_devices import check_devices
from mlscale.runs.job_record import JobRecord
from mlscale.secrets.secret_patterns import has_known_format, is_secret_key

_MAX_OUTPUT = 600


@dataclass(frozen=True)
class CloudPlatform:
    """A platform on which runs have a file system of their own, and the commands of its client.

    Attributes:
        name: for messages.
        file: the job's file in the run folder.
        commands: by what they do: submit, logs, cancel, resume; with places for the file, the job's namespace and name,
            and the flags of its secrets.
    """

    name: str
    file: str
    commands: Mapping[str, str]

    def format_command(self, action: str, record: JobRecord, run: Path) -> str:
        """Return the command for the job of a run, to be typed."""
        namespace, _, name = record.id.rpartition("/")
        # Names alone: the values travel from this environment.
        secrets = "".join(f"--secret={variable} " for variable in record.variables)
        file = shlex.quote(str(run / self.file))
        return self.commands[action].format(file=file, namespace=namespace, name=name, secrets=secrets)


_APPLY, _LAUNCH = "kubectl apply -f {file}", "sky jobs launch --yes --detach-run {secrets}{file}"
_DELETE = "kubectl --namespace={namespace} delete trainjobs.trainer.kubeflow.org {name}"
# Of the first node, whose first process prints.
_PODS = "jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0"
PLATFORMS: Mapping[str, CloudPlatform] = {
    "kubernetes": CloudPlatform(
        "Kubernetes",
        "kubernetes.yaml",
        {
            "submit": _APPLY,
            "logs": "kubectl --namespace={namespace} logs --follow --tail=-1 -l " + _PODS,
            "cancel": _DELETE,
            # `apply` leaves a job that has ended as it is.
            "resume": f"{_DELETE} --ignore-not-found && {_APPLY}",
        },
    ),
    "skypilot": CloudPlatform(
        "SkyPilot",
        "skypilot.yaml",
        {
            "submit": _LAUNCH,
            "logs": "sky jobs logs --name={name} --follow",
            "cancel": "sky jobs cancel --name={name} --yes",
            "resume": _LAUNCH,
        },
    ),
}


def run_client(command: str) -> None:
    """Run a command of a client.

    Raises:
        MLScaleError: it fails (exit code 5).
    """
    words = shlex.split(command)
    # Without a terminal: a client that asks for a login would wait for ever.
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise MLScaleError(
            f"{words[0]} ended with exit code {done.returncode}",
            where=command,
            why=" | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])[-_MAX_OUTPUT:],
            fix=f"{command}, once {words[0]} reaches its server",
            exit=Exit.ENVIRONMENT,
        )


class _JobDumper(yaml.SafeDumper):
    """A dumper that writes texts of several lines as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Blanks at the end of a line can't be kept in a block: the library then falls back to quotes by itself.
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_JobDumper.add_representer(str, _represent_text)


def render_scalar(value: object) -> str:
    """Return the text of a value that has to be a text: `true` for True, as YAML writes it, and labels of nodes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def render_yaml(document: Mapping[str, Any]) -> str:
    """Return a document as YAML text, its keys in their order."""
    return yaml.dump(dict(document), Dumper=_JobDumper, sort_keys=False, allow_unicode=True, width=120)


def resolve_runs_dir(runs_dir: str, volume_path: str) -> str:
    """Return the folder of the runs on a node: a relative one is on the volume."""
    return str(PurePosixPath(volume_path) / runs_dir)  # an absolute one stays


def is_below(path: str, folder: str) -> bool:
    """Return True if `path` is the folder or in it, by its text: `..` is resolved, links are not followed."""
    parts, outer = _normalise_path(path), _normalise_path(folder)
    return parts[: len(outer)] == outer


def _normalise_path(path: str) -> list[str]:
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        # The parent of the root is the root (path_resolution(7)).
        if part == "..":
            parts = parts[:1] if len(parts) <= 1 else parts[:-1]
        else:
            parts.append(part)
    return parts


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


Settings = TypeVar("Settings", bound="CloudSettings")


@dataclass(frozen=True, kw_only=True)
class CloudSettings:
    """The settings that every platform with its own file system takes; conf/launch has a file for each platform."""

    # The key of the volume or bucket, and what sets it, to type.
    volume_key: ClassVar[str]
    volume_fix: ClassVar[str]
    # The least value of each number.
    least: ClassVar[Mapping[str, int]] = {"nodes": 1, "max_failures": 0}

    volume_path: str = "/mnt/mlscale"
    nodes: int = 1
    variables: Sequence[str] = ()
    env: Mapping[str, Any] = field(default_factory=dict)
    cpu: str | int | None = None
    mem: str | int | None = None
    image: str | None = None
    max_failures: int = 3

    @classmethod
    def find_own_problems(cls, launch: Mapping[str, Any]) -> Iterator[MLScaleError]:
        """Yield what is wrong on this platform alone."""
        yield from ()


def read_cloud_settings(
    kind: type[Settings], launch: Mapping[str, Any], devices: object, runs_dir: str, required: Sequence[str]
) -> Settings:
    """Return the settings of a job.

    Args:
        kind: the settings of the platform.
        launch: the values of the group `launch`.
        devices: `trainer.devices`.
        runs_dir: `runs_dir`.
        required: the environment variables without which the run's config can't be resolved.

    Raises:
        MLScaleError: everything that is wrong with them, reported together.
    """
    # All of them before the first value is used: a wrong type would fail in the constructor, alone.
    raise_all([*_find_problems(kind, launch, devices, runs_dir, required)])
    # Keys for the processes of the job, such as `timeout_s`, are not settings of the pod or the task.
    return kind(**{name: value for name, value in launch.items() if name in kind.__dataclass_fields__})


def _find_problems(
    kind: type[CloudSettings], launch: Mapping[str, Any], devices: object, runs_dir: str, required: Sequence[str]
) -> Iterator[MLScaleError]:
    yield from kind.find_own_problems(launch)
    yield from check_runs_folder(runs_dir, launch[kind.volume_key], str(launch["volume_path"]), kind.volume_fix)
    yield from check_devices(devices)
    yield from check_counts(launch, kind.least)
    yield from check_variables(launch["variables"], launch["env"])
    yield from check_scalars("env", launch["env"])
    # A variable of `launch.env` is passed, too.
    yield from check_required(required, [*launch["variables"], *launch["env"]])
    yield from check_texts(launch)
