"""Render the job script of a run: directives of sbatch, and shell lines that train, save in time, and requeue."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.launch.job_environment import JOB_CODE, JOB_RUN
from mlscale.launch.slurm.settings import SlurmSettings
from mlscale.secrets.secret_patterns import find_secret_spans

_PLAIN = re.compile(r"[\w.,:=+@%/\[\]-]+")  # what needs no quotes in a directive

_BODY = """\
set -u
step= stopped= signals=
stop() {{ stopped=$1 signals="$signals $1"; [ -z "$step" ] || kill -s "$1" "$step" 2>/dev/null; }}
trap 'stop USR1' USR1 # ahead of the time limit
trap 'stop TERM' TERM # preempted or cancelled; or SLURM ends what a node still ran that it had lost
{run_lines}
export {job_run}="$run"
{environment_lines}
# SLURM sends signals to all processes of a job. These ignore them, and one that was ended before it did is run again.
shielded() {{
  local seen=$signals code=0
  (trap '' TERM USR1; exec "$@") || code=$?
  if [ "$code" -gt 128 ] && [ "$seen" != "$signals" ]; then shielded "$@"; else return "$code"; fi
}}
report() {{ shielded {python} -m mlscale runs job "$@"; }}

report start "$run" || exit
code=75
[ "$stopped" != TERM ] || code=143
if [ -z "$stopped" ]; then
  {command} &
  step=$!
  [ -z "$stopped" ] || kill -s "$stopped" "$step" # it came before this shell knew the step
  # A signal interrupts `wait`, which then returns no exit code of the step.
  while stopped=; wait "$step"; last=$?; [ "$last" = 127 ] || code=$last; [ -n "$stopped" ]; do :; done
fi
# srun returns 143 also where a task was killed and it has ended the others; it kills all (137) at a second SIGTERM.
case "$code$signals" in 143*TERM* | 137*TERM*) code=143 ;; 143*) code=137 ;; esac
report end "$run" code="$code"
code=$?
if [ "$code" = 75 ]; then
  case "$(shielded squeue -h -j "{job_id}" -o %T 2>/dev/null)$signals" in
    COMPLETING*USR1*) ;; # over its time limit
    # Cancelled; or preempted, and SLURM requeues it.
    COMPLETING*) echo "not requeued by the job: SLURM ends it"; exit 143 ;;
  esac
  why=$(shielded scontrol requeue "{job_id}" 2>&1) || case "$why" in
    *"pending execution"*) ;; # SLURM has requeued it already: preempted, or `scontrol requeue` by hand
    *) echo "not requeued: $why; mlscale runs resume $run" ;;
  esac
fi
exit "$code"
"""


@dataclass(frozen=True)
class JobPaths:
    """The paths of a job.

    Attributes:
        name: of the job, as the scheduler shows it.
        run: the run folder; None for an array.
        list_file: of an array, a file with a run folder in each line.
        tasks: of an array, the number of runs.
        log: the file with the output; `%a` stands for the number of a task.
        code: the folder with the code as it was submitted; None to import the code of `working`.
        working: the folder in which the job runs.
    """

    name: str
    run: Path | None
    log: Path
    working: Path
    list_file: Path | None = None
    tasks: int = 0
    code: Path | None = None


def render_job_script(settings: SlurmSettings, paths: JobPaths) -> str:
    """Return the script that sbatch takes.

    Raises:
        MLScaleError: it would hold a secret.
    """
    directives = [f"#SBATCH {_format_directive(name, value)}" for name, value in _iterate_directives(settings, paths)]
    body = _BODY.format(
        run_lines="\n".join(_format_run_lines(paths)),
        environment_lines="\n".join(_format_environment_lines(settings, paths)),
        job_run=JOB_RUN,
        python=shlex.quote(_get_host_python(settings)),
        command=_format_training(settings, paths),
        job_id="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if paths.list_file else "$SLURM_JOB_ID",
    )
    script = "\n".join(["#!/bin/bash", *directives, "# Written by mlscale; see docs/slurm.md.", body])
    _refuse_secrets(script)
    return script


def _get_host_python(settings: SlurmSettings) -> str:
    """Return the interpreter of the batch script, which runs outside of a container."""
    return sys.executable if settings.container else settings.python or sys.executable


def _iterate_directives(settings: SlurmSettings, paths: JobPaths) -> Iterator[tuple[str, object]]:
    """Yield the options of sbatch with their values; True for an option without one."""
    yield "job-name", paths.name
    yield "chdir", paths.working
    # sbatch replaces %x and the like in this path alone; the number of an array's task is such a one.
    yield "output", str(paths.log.parent).replace("%", "%%") + f"/{paths.log.name}"
    yield "open-mode", "append"
    yield "requeue", True
    yield "signal", f"B:USR1@{settings.grace_s}"
    if paths.list_file:
        yield "array", f"0-{paths.tasks - 1}" + (f"%{settings.array}" if settings.array else "")
    yield "nodes", settings.nodes
    yield "ntasks-per-node", settings.devices
    gpus = f"gpu:{settings.devices}" if settings.uses_gpus else None
    named = {"cpus-per-task": settings.cpus, "gres": settings.gres or gpus}
    for name in ("partition", "account", "qos", "time", "mem", "constraint"):
        named[name] = getattr(settings, name)
    named.update({str(name): value for name, value in settings.directives.items()})
    # Not by `in (None, False)`: 0 equals False, and `--mem=0` requests all memory of a node.
    yield from ((name, value) for name, value in named.items() if value is not None and value is not False)


def _format_directive(name: str, value: object) -> str:
    """Return `--name=value` as sbatch reads it in a script: double quotes, in which a backslash escapes."""
    if value is True:
        return f"--{name}"
    # Lists of sbatch are separated by commas.
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if not _PLAIN.fullmatch(text):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"--{name}={text}"


def _format_run_lines(paths: JobPaths) -> Iterator[str]:
    if paths.list_file is None:
        yield f"run={shlex.quote(str(paths.run))}"
    else:
        # sed counts lines from 1, the array's tasks count from 0.
        yield f'run=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(paths.list_file))})'


def _format_environment_lines(settings: SlurmSettings, paths: JobPaths) -> Iterator[str]:
    if paths.code is not None:
        # Python would otherwise import from the working folder first, whose files may have changed since.
        code = shlex.quote(str(paths.code))
        yield f"export {JOB_CODE}={code} PYTHONSAFEPATH=1 PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}"
    yield from (f"module load {shlex.quote(module)}" for module in settings.modules)
    yield from settings.setup


def _format_training(settings: SlurmSettings, paths: JobPaths) -> str:
    words = ["srun", f"--ntasks={settings.world_size}", "--kill-on-bad-exit=1", "--unbuffered"]
    if settings.cpus:
        # srun does not take over the sbatch option of this name, since SLURM 22.05.
        words.append(f"--cpus-per-task={settings.cpus}")
    python = settings.python or ("python" if settings.container else sys.executable)
    words += [*_build_container_options(settings, paths), *settings.srun, *_build_container_command(settings, paths)]
    return " ".join([*map(shlex.quote, [*words, python, "-m", "mlscale", "train"]), 'resume="$run"'])


def _list_mounts(settings: SlurmSettings, paths: JobPaths) -> list[str]:
    root = (paths.run or paths.list_file or paths.working).parent
    folders = dict.fromkeys([str(paths.working), str(root)])
    return [*(f"{folder}:{folder}" for folder in folders), *settings.container_mounts]


def _build_container_options(settings: SlurmSettings, paths: JobPaths) -> list[str]:
    if not settings.container or settings.container_runtime != "pyxis":
        return []
    mounts = ",".join(_list_mounts(settings, paths))
    return [
        f"--container-image={settings.container}",
        f"--container-mounts={mounts}",
        f"--container-workdir={paths.working}",
    ]


def _build_container_command(settings: SlurmSettings, paths: JobPaths) -> Sequence[str]:
    if not settings.container or settings.container_runtime != "apptainer":
        return []
    binds = [word for mount in _list_mounts(settings, paths) for word in ("--bind", mount)]
    gpus = ["--nv"] if settings.uses_gpus else []
    return ["apptainer", "exec", *gpus, *binds, "--pwd", str(paths.working), settings.container]


def _refuse_secrets(script: str) -> None:
    """Raise for what looks like a secret: schedulers keep job scripts, and show them.

    Raises:
        MLScaleError: a line has one.
    """
    for number, line in enumerate(script.splitlines(), 1):
        if find_secret_spans(line, bare=False):
            raise MLScaleError(
                "the job script would hold a secret",
                where=f"line {number} of the script: {line.split('=')[0]}=***",
                why="the scheduler keeps the script, and may show it to others",
                fix="export it before you submit: the job gets the environment",
            )
