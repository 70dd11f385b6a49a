"""Failures of ranks: each rank writes its own into the run folder; the parent reads them and determines the cause."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from mlscale.atomic_files import create_write_error
from mlscale.errors import STOPS, Exit, MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_search import suggest_resume
from mlscale.secrets.mask import Masker

_REMOTE_FAILURES = _TIMEOUT, _PEER = "timeout", "peer lost"
UNWRITTEN = 74
"""The exit code of a rank that can't write its failure into the run folder: EX_IOERR of sysexits.h."""
# Texts of Gloo and NCCL, which have no error codes: compared in lower case.
_TIMED_OUT = ("timeout", "timed out")
_PEER_LOST = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "remote process exited",
    "connectfullmesh", "connection refused", "failed to recv", "failed to connect", "socket closed",
)  # fmt: skip
_REPORTED = "rank-failure-reported"  # made by the rank that prints the failure of a run
# A rank that failed because of another one waits this long before it ends, as the agent then ends all ranks: so the
# others can report theirs first, and a rank that died is the first whose end the agent sees.
_GRACE_SECONDS = 2.0


def classify_remote_failure(error: BaseException) -> str:
    """Return `timeout` if a collective timed out, `peer lost` if another rank has ended, else an empty text."""
    from torch.distributed import DistError

    text = str(error).lower()
    # Gloo raises plain RuntimeErrors, which begin with the path of its source file.
    if not isinstance(error, DistError) and not (isinstance(error, RuntimeError) and "gloo" in text):
        return ""
    if any(words in text for words in _PEER_LOST):
        return _PEER
    return _TIMEOUT if any(words in text for words in _TIMED_OUT) else ""


def write_rank_failure(folder: Path, rank: int, error: MLScaleError) -> None:
    """Write a failure into the run folder for the parent process.

    Raises:
        OSError: it can't be written, as on a full or read-only disk; a rank then ends with the code `UNWRITTEN`.
    """
    error = error.mask_texts(Masker.create_for_process().mask_text)
    record = {name: getattr(error, name) for name in ("what", "where", "why", "fix")}
    record |= {"exit": int(error.exit), "unbuilt": error.unbuilt, "time": time.time()}
    path = _get_failure_path(folder, rank)
    aside = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside.write_text(json.dumps(record))
    aside.replace(path)


def write_remote_failure(folder: Path, rank: int, what: str, error: BaseException) -> None:
    """Write a failure that another rank caused, and give the other ranks time to write theirs."""
    first_line = str(error).strip().splitlines()[0]
    write_rank_failure(folder, rank, MLScaleError(what, why=first_line, exit=Exit.ENVIRONMENT))
    time.sleep(_GRACE_SECONDS)


def has_rank_failures(folder: Path) -> bool:
    """Return True if a rank has failed, so that the others need not continue; not if it was stopped, as all are."""
    records = (json.loads(path.read_text()) for path in (folder / "logs").glob("rank*-failure.json"))
    return any(record["exit"] not in STOPS for record in records)


def find_own_failure(folder: Path, world_size: int) -> MLScaleError | None:
    """Return the first error that a rank caused itself; None where all failures were caused by another rank."""
    own = [
        record for record in _read_rank_failures(folder, world_size).values() if record["what"] not in _REMOTE_FAILURES
    ]
    if not own:
        return None
    record = min(own, key=lambda record: record["time"])
    fields = {name: str(record[name]) for name in ("what", "where", "why", "fix")}
    error = MLScaleError(**fields, exit=Exit(record["exit"]))
    error.unbuilt = record["unbuilt"]
    return error


def determine_failure_cause(folder: Path, world_size: int, rank: int, code: int) -> MLScaleError:
    """Return the error to report: a rank's own, the missing rank of a collective, or the signal that killed one.

    Args:
        rank: the first one that ended with an exit code other than 0.
        code: that exit code; of a signal its number, negative.
    """
    if own := find_own_failure(folder, world_size):
        return own
    records = _read_rank_failures(folder, world_size)
    if code < 0 and rank not in records:
        name = signal.Signals(-code).name
        likely = (
            "SIGKILL is what Linux sends when memory runs out"
            if name == "SIGKILL"
            else "the process was ended from outside"
        )
        return MLScaleError(
            f"rank {rank} was killed by {name}",
            where=str(folder),
            why=likely,
            fix=f"{suggest_resume(folder)}; with more memory, or fewer processes (trainer.devices), if that was it",
            exit=Exit.ENVIRONMENT,
        )
    if rank not in records and code == UNWRITTEN:
        return _explain_unwritten_failure(folder, rank)
    if records:
        return _explain_missing_ranks(folder, world_size, records)
    return MLScaleError(
        f"rank {rank} ended with exit code {code} and left no message",
        where=str(folder),
        why="code that it ran has ended it, by os._exit",
        fix="trainer.devices=1, which runs it in this process\nexport MLSCALE_TRACEBACK=1, which shows where it failed",
        exit=Exit.BUG,
    )


def _explain_unwritten_failure(folder: Path, rank: int) -> MLScaleError:
    """Return the error for a rank that could not write its failure; see `write_rank_failure`."""
    aside = folder / "logs" / f"rank{rank}-failure.tmp"
    try:
        # Repeat the write to get the system's error: the rank's message holds only a text.
        aside.write_text("{}" * 512)
        aside.unlink()
    except OSError as error:
        return create_write_error(aside.parent, error)
    return MLScaleError(
        f"rank {rank} could not write to the run folder, not even why it ended",
        where=str(folder),
        why="the disk was full or read-only, and no longer is",
        fix="mlscale runs resume last",
        exit=Exit.ENVIRONMENT,
    )


def explain_unsaved_stop(folder: Path, signum: signal.Signals) -> MLScaleError:
    """Return the error for ranks that a signal, or a second one, has ended before they could save."""
    return MLScaleError(
        f"stopped by {signum.name}, nothing new is saved",
        where=str(folder),
        fix=suggest_resume(folder),
        exit=Exit.INTERRUPTED if signum == signal.SIGINT else Exit.TERMINATED,
    )


def explain_killed_fork_server(folder: Path) -> MLScaleError:
    """Return the error for ranks whose fork server was killed; they end within a second, without a report."""
    time.sleep(_GRACE_SECONDS)  # until they have ended: another attempt may then start
    return MLScaleError(
        "the process that starts the ranks (the fork server) was killed",
        where=str(folder),
        why="its ranks end with it; SIGKILL is what Linux sends when memory runs out",
        fix=f"{suggest_resume(folder)}; with more memory, or fewer processes (trainer.devices), if that was it",
        exit=Exit.ENVIRONMENT,
    )


def _explain_missing_ranks(folder: Path, world_size: int, records: dict[int, dict[str, Any]]) -> MLScaleError:
    missing = [rank for rank in range(world_size) if rank not in records]
    who = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))} did not take part"
    lost = any(record["what"] == _PEER for record in records.values())
    return MLScaleError(
        f"a collective {'failed' if lost else 'timed out'}: {who if missing else 'all ranks waited for each other'}",
        where=str(folder / "logs"),
        why=next(iter(records.values()))["why"],
        fix="strategy.timeout=3600, which waits longer; or look at what that rank did (a slow disk, a stuck transform, "
        "a branch that only it took)",
        exit=Exit.ENVIRONMENT,
    )


def clear_rank_failures(folder: Path) -> None:
    """Remove the failures of an earlier attempt."""
    for path in (folder / "logs").glob("rank*-failure.json"):
        path.unlink()
    (folder / "logs" / _REPORTED).unlink(missing_ok=True)


def claim_failure_report(folder: Path) -> bool:
    """Return True for the first rank that calls it in an attempt: that one prints the failure."""
    try:
        (folder / "logs" / _REPORTED).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # a full or read-only disk: several reports are better than none
        return True
    return True


def is_failure_reported(folder: Path) -> bool:
    """Return True if a rank has printed the failure of this attempt."""
    return (folder / "logs" / _REPORTED).exists()


def explain_lost_ranks(folder: Path, world_size: int) -> MLScaleError:
    """Return the error for ranks that ended without a message, or that all others waited for in vain."""
    records = _read_rank_failures(folder, world_size)
    missing = [rank for rank in range(world_size) if rank not in records]
    if not missing or all(record["what"] == _TIMEOUT for record in records.values()):
        return _explain_missing_ranks(folder, world_size, records)
    several = len(missing) > 1
    return MLScaleError(
        f"rank{'s' if several else ''} {', '.join(map(str, missing))} ended without a message",
        where=str(folder),
        why=f"the connection to {'them' if several else 'it'} is closed: killed (Linux sends SIGKILL when memory runs "
        f"out), or the machine or its network is gone",
        fix="mlscale runs resume last, once you have looked at the launcher's output",
        exit=Exit.ENVIRONMENT,
    )


def _get_failure_path(folder: Path, rank: int) -> Path:
    return folder / "logs" / f"rank{rank}-failure.json"


def _read_rank_failures(folder: Path, world_size: int) -> dict[int, dict[str, Any]]:
    paths = {rank: _get_failure_path(folder, rank) for rank in range(world_size)}
    return {rank: json.loads(path.read_text()) for rank, path in paths.items() if path.is_file()}
