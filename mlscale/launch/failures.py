"""What became of a rank: each writes its own failure into the run folder, the parent reads them and names the cause."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

_TIMED_OUT = ("timed out waiting", "timeout", "timed out")
# How long a rank whose collective timed out waits for the others to report the same, before the agent ends them all.
_GRACE_SECONDS = 2.0


def is_timeout(error: BaseException) -> bool:
    """Whether a collective gave up waiting for another rank."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _TIMED_OUT)


def write(folder: Path, rank: int, error: MLScaleError) -> None:
    """Leave a failure for the parent process."""
    record = {name: getattr(error, name) for name in ("what", "where", "why", "fix")}
    record |= {"exit": int(error.exit), "time": time.time()}
    path = _path(folder, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(record))
    aside.replace(path)


def write_timeout(folder: Path, rank: int, error: BaseException) -> None:
    """Leave word that this rank waited in vain, and give the others time to do the same."""
    first_line = str(error).strip().splitlines()[0]
    write(folder, rank, MLScaleError("timeout", why=first_line, exit=Exit.ENVIRONMENT))
    time.sleep(_GRACE_SECONDS)


def cause(folder: Path, world_size: int, error: ChildFailedError) -> MLScaleError:
    """The error to tell: the first rank's own, the missing rank of a collective, or the signal that killed one."""
    records = _read(folder, world_size)
    real = {rank: record for rank, record in records.items() if record["what"] != "timeout"}
    if real:
        _, record = min(real.items(), key=lambda item: item[1]["time"])
        fields = {name: str(record[name]) for name in ("what", "where", "why", "fix")}
        return MLScaleError(**fields, exit=Exit(record["exit"]))
    if records:
        return _missing(folder, world_size, records)
    rank, failure = error.get_first_failure()
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        likely = (
            "SIGKILL is what Linux sends when memory runs out"
            if name == "SIGKILL"
            else "the process was ended from outside"
        )
        return MLScaleError(
            f"rank {rank} was killed by {name}",
            where=str(folder),
            why=likely,
            fix="fewer processes (trainer.devices), a smaller data.batch_size, or more memory",
            exit=Exit.ENVIRONMENT,
        )
    return MLScaleError(
        f"rank {rank} ended with exit code {failure.exitcode} and left no message",
        where=str(folder),
        why=str(failure.message)[:500],
        fix="trainer.devices=1 runs it in this process; MLSCALE_TRACEBACK=1 shows where it failed",
        exit=Exit.BUG,
    )


def _missing(folder: Path, world_size: int, records: dict[int, dict[str, Any]]) -> MLScaleError:
    missing = [rank for rank in range(world_size) if rank not in records]
    who = ", ".join(map(str, missing)) or "none: all ranks were late"
    return MLScaleError(
        f"a collective timed out: rank {who} did not take part",
        where=str(folder / "logs"),
        why=next(iter(records.values()))["why"],
        fix="look at what that rank did (a slow disk, a stuck transform, a branch that only it took); "
        "strategy.timeout=3600 waits longer",
        exit=Exit.ENVIRONMENT,
    )


def clear(folder: Path) -> None:
    """Forget the failures of an earlier attempt."""
    for path in (folder / "logs").glob("rank*-failure.json"):
        path.unlink()


def _path(folder: Path, rank: int) -> Path:
    return folder / "logs" / f"rank{rank}-failure.json"


def _read(folder: Path, world_size: int) -> dict[int, dict[str, Any]]:
    paths = {rank: _path(folder, rank) for rank in range(world_size)}
    return {rank: json.loads(path.read_text()) for rank, path in paths.items() if path.is_file()}
