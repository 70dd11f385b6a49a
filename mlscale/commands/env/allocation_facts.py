"""Facts of each process of an allocation, gathered by rank 0: versions, clock, the folder of the runs."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, but not listed

_COMPARED = ("mlscale", "torch", "pytorch-lightning")
_POLL_SECONDS = 0.02
_ECHOES = 6  # the first calls the roll, the fastest of the others has the least error of a clock
_WORD_FACTOR = 3.0


@dataclass(frozen=True)
class ProcessFacts:
    """The facts of one process.

    Attributes:
        rank: of the process.
        host: the name of its machine; of its node, where srun started it.
        local_rank: among the processes of its machine.
        versions: of Python and of the packages that matter, by name.
        devices: CUDA devices that it sees.
    """

    rank: int
    host: str
    local_rank: int
    versions: Mapping[str, str]
    devices: int


def collect_process_facts(external: ExternalRank) -> ProcessFacts:
    """Return the facts of this process."""
    import torch

    # What two processes must share to exchange tensors and checkpoints.
    versions = {"python": sys.version.split()[0]}
    for name in _COMPARED:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    # SLURM's name of a node is what its options take; other launchers may pass on that of the machine they are on.
    node = external.environment.get("SLURMD_NODENAME") if external.launcher.name == "srun" else None
    host = node or socket.gethostname()
    return ProcessFacts(external.rank, host, external.local_rank, versions, torch.cuda.device_count())


def publish_facts(store: Store, facts: ProcessFacts) -> None:
    """Make the facts of this process known to rank 0."""
    store.set(f"facts/{facts.rank}", json.dumps(asdict(facts)))


def gather_facts(store: Store, world_size: int, timeout_s: float) -> dict[int, ProcessFacts]:
    """Return the facts of the processes that came within the time, by rank."""
    answers = gather_answers(store, "facts", range(world_size), timeout_s)
    return {rank: ProcessFacts(**json.loads(text)) for rank, text in answers.items()}


def gather_answers(store: Store, name: str, ranks: Iterable[int], timeout_s: float) -> dict[int, str]:
    """Return what ranks have left under `name` within the time, by rank; without those that are silent."""
    missing, answers = set(ranks), {}

    def read_arrived() -> bool:
        for rank in sorted(missing):
            if store.check([f"{name}/{rank}"]):
                answers[rank] = store.get(f"{name}/{rank}").decode()
                missing.discard(rank)
        return not missing

    wait_until(read_arrived, timeout_s)
    return dict(sorted(answers.items()))


def measure_clock_offsets(store: Store, ranks: Sequence[int], timeout_s: float) -> dict[int, float]:
    """Return the seconds by which the clock of each rank is ahead of this one's, without those that are silent; run on
    rank 0.
    """
    # All at once: asked one after the other, each silent rank would take the whole time.
    for rank in ranks:
        store.set(f"echo/{rank}/0", "")
    offsets = {}
    # By messages through the store: clocks must be compared before any link is known to work.
    for rank in gather_answers(store, "clock/0", ranks, timeout_s):
        answers: list[tuple[float, float]] = []
        for number in range(1, _ECHOES):
            sent = time.time()
            store.set(f"echo/{rank}/{number}", "")
            answer = gather_answers(store, f"clock/{number}", [rank], timeout_s)
            if not answer:
                break
            received = time.time()
            # The request has taken about half of the time until the answer came.
            answers.append((received - sent, float(answer[rank]) - (sent + received) / 2))
        if answers:
            offsets[rank] = min(answers)[1]
    return offsets


def answer_clock_requests(store: Store, rank: int, timeout_s: float) -> None:
    """Answer the requests of `measure_clock_offsets`; run on every other rank."""
    for number in range(_ECHOES):
        wait_for_word(store, f"echo/{rank}/{number}", timeout_s)
        store.set(f"clock/{number}/{rank}", repr(time.time()))


def write_folder_token(store: Store, folder: Path) -> Path | None:
    """Write a file into a folder for the other ranks to find; return its path, or None where that fails."""
    # A name that no earlier check has left behind.
    token = secrets.token_hex(8)
    path = folder / f".mlscale-env-{token}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(token)
    except OSError:
        store.set("token", "")
        return None
    store.set("token", json.dumps([str(path.absolute()), token]))
    return path


def check_folder_token(store: Store, rank: int, timeout_s: float) -> None:
    """Report whether this rank reads the file that rank 0 has written; run on every other rank."""
    text = wait_for_word(store, "token", timeout_s)
    path, token = json.loads(text) if text else ("", "")
    # A network file system may show a new file late.
    is_seen = bool(path) and wait_until(lambda: _read_text(path) == token, min(timeout_s, 5.0))
    store.set(f"sees/{rank}", "1" if is_seen else "")


def wait_for_word(store: Store, key: str, timeout_s: float) -> str:
    """Return what rank 0 has left under `key`; run on every other rank.

    Raises:
        MLScaleError: it comes too late (exit code 5).
    """
    # Rank 0 itself waits that long for ranks that are late or silent, for some of them twice.
    limit = _WORD_FACTOR * timeout_s
    if not wait_until(lambda: store.check([key]), limit):
        raise MLScaleError(
            f"rank 0 is silent for {limit:g} s",
            why="it decides what is checked next, and the other processes follow it",
            fix="timeout_s=300, which waits longer, if the output of rank 0 shows no error",
            exit=Exit.ENVIRONMENT,
        )
    return store.get(key).decode()


def wait_until(is_done: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `is_done` returns True; return False where that takes longer."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _read_text(path: str) -> str:
    # Listed first: a network file system may have cached that the file was missing.
    with suppress(OSError):
        os.listdir(os.path.dirname(path))
        return Path(path).read_text()
    return ""
