"""Submit the job of a run, or one array for the runs of a sweep: code, script and record first, then sbatch.

Put the code of a run into a folder, as it was at the submission, uncommitted changes included.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from mlscale.atomic_files import make_folders, write_text
from mlscale.errors import MLScaleError
from mlscale.launch.slurm.job_script import JobPaths, render_job_script
from mlscale.launch.slurm.settings import SlurmSettings
from mlscale.launch.slurm.slurm_commands import cancel_job, read_cluster_name, release_job, submit_held_script
from mlscale.runs import ownership as own
from mlscale.runs.code.code_snapshot import CodeSnapshot
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import get_current_time
from mlscale.runs.job_record import CODE_FOLDER, LOG, SCRIPT, JobRecord, read_job_record

_LIST = "jobs-{number}.txt"
_MAX_VARIABLE = 100_000  # characters; Linux takes 131,071 (MAX_ARG_STRLEN)


def plan_run_job(run: Path, *, ships_code: bool) -> JobPaths:
    """Return the paths of the job of one run; nothing is created."""
    code = run / CODE_FOLDER if ships_code else None
    return JobPaths(run.name, run, run / LOG, Path.cwd(), code=code)


def submit_run_job(
    run: RunFolder, settings: SlurmSettings, variables: Sequence[str], code: CodeSnapshot | None = None
) -> str:
    """Submit the job of a run; return its id.

    Args:
        run: its folder.
        settings: of the job.
        variables: names of the environment variables that the run's config needs.
        code: a snapshot to ship; None where the folder has a copy from an earlier submission, or for no copy.

    Raises:
        MLScaleError: SLURM refuses the job, or is not there (exit code 5).
    """
    # First: where SLURM is not there, nothing is written.
    cluster = read_cluster_name()
    if code is not None:
        unpack_code(code, run.path / CODE_FOLDER)
    paths = plan_run_job(run.path, ships_code=(run.path / CODE_FOLDER).is_dir())
    script = run.path / SCRIPT
    write_text(script, render_job_script(settings, paths))
    # Held: a job that starts at once would find no record of itself.
    job = submit_held_script(script, _export_run_keys([run]))
    _record_and_release(job, {job: run}, settings, cluster, variables, paths.log)
    return job


def plan_array(sweep: Path, count: int, *, ships_code: bool) -> JobPaths:
    """Return the paths of the next array of a sweep with `count` runs; nothing is created."""
    number = 1 + len(list(sweep.glob(_LIST.format(number="*"))))
    list_file = sweep / _LIST.format(number=number)
    code = sweep / CODE_FOLDER if ships_code else None
    log = sweep / "logs" / f"array-{number}-%a.log"
    return JobPaths(sweep.name, None, log, Path.cwd(), list_file=list_file, tasks=count, code=code)


def submit_array(
    sweep: Path,
    runs: Sequence[RunFolder],
    settings: SlurmSettings,
    variables: Mapping[str, Sequence[str]],
    code: CodeSnapshot | None = None,
) -> str:
    """Submit one array with a task for each run; return its id.

    Args:
        sweep: the folder of the sweep.
        runs: in the order of the array's tasks.
        settings: of every task.
        variables: id of a run to the names of the environment variables that its config needs.
        code: a snapshot to ship; None where the folder has a copy from an earlier submission, or for no copy.

    Raises:
        MLScaleError: SLURM refuses the array, or is not there (exit code 5).
    """
    cluster = read_cluster_name()
    if code is not None:
        unpack_code(code, sweep / CODE_FOLDER)
    paths = plan_array(sweep, len(runs), ships_code=(sweep / CODE_FOLDER).is_dir())
    assert paths.list_file is not None
    make_folders(paths.log.parent)
    # A task finds its run by the line of its number: the script is the same for all.
    write_text(paths.list_file, "".join(f"{run.path}\n" for run in runs))
    script = paths.list_file.with_suffix(".sh")
    write_text(script, render_job_script(settings, paths))
    array = submit_held_script(script, _export_run_keys(runs))
    tasks = {f"{array}_{number}": run for number, run in enumerate(runs)}
    names = sorted({name for run in runs for name in variables.get(run.id, ())})
    _record_and_release(array, tasks, settings, cluster, names, paths.log)
    return array


def _record_and_release(
    job: str,
    tasks: Mapping[str, RunFolder],
    settings: SlurmSettings,
    cluster: str,
    variables: Sequence[str],
    log: Path,
) -> None:
    """Write the records, and let the job start: its first act is to read its record."""
    try:
        for task, run in tasks.items():
            before = read_job_record(run.path)
            JobRecord(
                scheduler="slurm",
                cluster=cluster,
                id=task,
                submitted=get_current_time(),
                log=str(log).replace("%a", task.rpartition("_")[2]),
                max_requeues=settings.max_requeues,
                max_failures=settings.max_failures,
                variables=tuple(variables),
                earlier=(*before.earlier, *before.starts) if before else (),
            ).write(run.path)
    except BaseException:
        # A held job without a record would wait for ever. The error that led here is the one to report.
        with contextlib.suppress(Exception):
            cancel_job(job)
        raise
    release_job(job)


def _export_run_keys(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Return the variable that proves on a node without this home folder that this user created the runs."""
    try:
        keys = own.export_run_keys(run.id for run in runs)
    # Without a key in the home folder later commands ask for trust=true, as after any training.
    except own.NoKeyError:
        return {}
    # Longer ones are refused by Linux, and no job would start: an array of over 1,200 runs needs the home folder.
    return {own.VARIABLE: keys} if len(keys) < _MAX_VARIABLE else {}


_CODE = (".py", ".yaml", ".yml")


def refuse_unshippable_code(code: CodeSnapshot) -> None:
    """Raise an error for code that would behave otherwise in the job: a text in it that looks like a secret is masked.

    Raises:
        MLScaleError: a file of code was altered.
    """
    altered = [name for name in code.masked if name.endswith(_CODE) and "tests" not in PurePath(name).parts]
    if altered:
        raise MLScaleError(
            "the code holds what looks like a secret, and a copy of it goes to the job",
            where=", ".join(altered[:3]),
            why="in the copy it is replaced by ***, so the job would run other code than you have here",
            fix="snapshot=false, and the job imports the code here; or read it from the environment, which jobs get",
        )


def describe_unshipped_files(code: CodeSnapshot) -> list[str]:
    """Return a line about files of code that the copy lacks: they are imported from the working folder."""
    lacking = [name for name in code.skipped if name.endswith(_CODE)]
    if not code.complete:
        return [f"code      {code.root} is too large for a copy: the job imports this folder's code as it is then"]
    if lacking:
        return [f"code      not in the copy, imported from this folder: {', '.join(lacking[:3])}"]
    return []


def unpack_code(code: CodeSnapshot, folder: Path) -> None:
    """Write the files of a snapshot into a new folder."""
    make_folders(folder)
    # The archive was made by this process, of regular files below the working folder.
    with tarfile.open(fileobj=io.BytesIO(code.archive), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")
