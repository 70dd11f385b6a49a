"""Start and end of a job, which its script reports by `mlscale runs job start|end FOLDER [CODE]`.

It keeps the job's record, and decides if the job is requeued. It imports neither torch nor the configuration.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mlscale.culprit import wrap_unforeseen_error
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.job_environment import is_job_of
from mlscale.report import Result
from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import get_current_time
from mlscale.runs.job_record import JobRecord, JobStart, read_job_record

# Ends that another start would not change: done, a mistake of the user, a diverged run, a gate, Ctrl-C. Not SIGTERM:
# the job's script asks SLURM if the job was cancelled.
_FINAL_CODES = (Exit.DONE, Exit.USER, Exit.DIVERGED, Exit.GATE, Exit.INTERRUPTED)
_TOO_LATE = 128 + signal.SIGUSR1


def record_job(action: str, folder: Path, code: int = 0) -> int:
    """Record a start or an end; return the exit code for the job, 75 to be requeued.

    Args:
        action: start or end.
        folder: the run's.
        code: the exit code of the training, for an end.

    Raises:
        MLScaleError: the run folder is not visible on this node, or corrupt (exit code 5).
    """
    run = _open_run(folder)
    record = read_job_record(run.path)
    if record is None:
        raise MLScaleError("the run has no job", where=str(folder), fix=f"mlscale runs resume {run.id}")
    if action == "start":
        return _start_job(run, record, os.environ)
    return _end_job(run, record, code, os.environ)


@contextlib.contextmanager
def report_rank_error(run: str | None, mask: Callable[[str], str]) -> Iterator[None]:
    """Record the error with which the block ends, on the first rank of a job: srun may have ended the others by a
    signal, whose code is higher.

    Args:
        run: the folder of the run that is resumed; only that of this process's job has a record for it.
        mask: replaces secrets.
    """
    try:
        yield
    except Exception as error:
        reported = error if isinstance(error, MLScaleError) else wrap_unforeseen_error(error)
        if run and is_job_of(Path(run)) and (record := read_job_record(Path(run))):
            cause = mask(reported.what.splitlines()[0])
            record.end_last_start(int(reported.exit), cause).write(Path(run))
        raise


def _open_run(folder: Path) -> RunFolder:
    if not folder.is_dir():
        raise MLScaleError(
            "the run folder is not visible on this node",
            where=str(folder),
            why="it must be on a file system that all nodes share",
            fix="runs_dir=<a folder that all nodes share>",
            exit=Exit.ENVIRONMENT,
        )
    return RunFolder.open(folder)


def _start_job(run: RunFolder, record: JobRecord, environment: Mapping[str, str]) -> int:
    step = find_saved_step(run)
    # A node that died reported no end of its start.
    record = record.close_silent_starts()
    missing = [name for name in record.variables if name not in environment]
    restart = _count_restarts(environment)
    if missing:
        why = f"the environment lacks {', '.join(missing)}, which the run's config needs"
        return _stop_job(run, record, f"{why}; export {missing[0]}=…, then: mlscale runs resume {run.id}", 5)
    if len(record.list_vain_starts(step)) >= record.max_failures:
        return _stop_job(run, record, _format_crash_loop(record, step), 5)
    if restart > record.max_requeues:
        return _stop_job(run, record, _format_limit(run, record), 5)
    start = JobStart(
        job=get_job_id(environment),
        restart=restart,
        nodes=environment.get("SLURM_JOB_NODELIST", ""),
        started=get_current_time(),
        step=step,
    )
    record = record.add_start(start)
    record.write(run.path)
    print(f"job       {start.job} on {start.nodes}, start {len(record.starts)}, step {step:,} saved", flush=True)
    return int(Exit.DONE)


def _end_job(run: RunFolder, record: JobRecord, code: int, environment: Mapping[str, str]) -> int:
    last = record.starts[-1] if record.starts else None
    # Where a signal ended one that started, the others report that they have lost it.
    if last is not None and last.code is not None and code != _TOO_LATE:
        code, cause = last.code, last.cause
    else:
        cause = _explain_end(code)
    record = record.end_last_start(code, cause)
    record.write(run.path)
    if code in _FINAL_CODES or record.cancelled:
        return code
    step = find_saved_step(run)
    # Exit code 75 would have the job requeued, and it is to stop here.
    failure = code if code != Exit.SAVED else int(Exit.ENVIRONMENT)
    if len(record.list_vain_starts(step)) >= record.max_failures:
        return _stop_job(run, record, _format_crash_loop(record, step), failure)
    if _count_restarts(environment) >= record.max_requeues:
        return _stop_job(run, record, _format_limit(run, record), failure)
    print(f"job       requeued from step {step:,}: {record.starts[-1].cause}", flush=True)
    return int(Exit.SAVED)


def _stop_job(run: RunFolder, record: JobRecord, sentence: str, code: int) -> int:
    """Record that the job is not requeued, with the causes of its failures; return its exit code."""
    replace(record, stopped=sentence).write(run.path)
    causes = {
        f"start {number}": f"{start.nodes or 'no node'}, step {start.step}: {start.cause or 'running'}"
        for number, start in enumerate(record.starts, 1)
    }
    result = Result(
        command="launch",
        ok=False,
        sentence=sentence,
        metrics={"starts": len(record.starts), "saved_steps": find_saved_step(run)},
        artifacts={"log": record.log},
        details={"starts": causes},
    )
    run.write_result("launch", result.as_dict())
    print(f"error: {sentence}", file=sys.stderr)
    for name, cause in causes.items():
        print(f"  {name}  {cause}", file=sys.stderr)
    return code


def _format_crash_loop(record: JobRecord, step: int) -> str:
    vain = record.list_vain_starts(step)
    causes = dict.fromkeys(start.cause or "no cause was reported" for start in vain)
    return f"stopped after {len(vain)} failures in a row at step {step:,}: {'; '.join(causes)}"


def _format_limit(run: RunFolder, record: JobRecord) -> str:
    return f"stopped: requeued {record.max_requeues} times (launch.max_requeues); mlscale runs resume {run.id}"


def _explain_end(code: int) -> str:
    """Return what the exit code of a start means that reported no error."""
    if code == _TOO_LATE:
        late = "launch.time is too short, or launch.grace_s too long"
        return f"the signal ahead of the time limit came while it started: {late}"
    if code == Exit.DONE:
        return "done"
    return f"killed by signal {code - 128}" if code > 128 else f"exit code {code}; see the log"


def find_saved_step(run: RunFolder) -> int:
    """Return the optimizer step of the run's most advanced checkpoint; 0 without one."""
    files = list_checkpoint_files(run.path / "checkpoints")
    return max((file.record.step for file in files if file.record), default=0)


def get_job_id(environment: Mapping[str, str]) -> str:
    """Return the id of the job that this process is in: `12`, or `12_3` for a task of an array."""
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment.get("SLURM_JOB_ID", "")


def _count_restarts(environment: Mapping[str, str]) -> int:
    return int(environment.get("SLURM_RESTART_COUNT", 0))
