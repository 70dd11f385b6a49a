"""Facts of each process of an allocation, gathered by rank 0: versions, clock, the folder of the runs."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, but not listed

_COMPARED = ("mlscale", "torch", "pytorch-lightning")
_POLL_SECONDS = 0.02
_ECHOES = 5  # the fastest of them has the least error of a clock


@dataclass(frozen=True)
class ProcessFacts:
    """The facts of one process.

    Attributes:
        rank: of the process.
        host: the name of its machine.
        local_rank: among the processes of its machine.
        versions: of Python and of the packages that matter, by name.
        devices: CUDA devices that it sees.
    """

    rank: int
    host: str
    local_rank: int
    versions: Mapping[str, str]
    devices: int


def collect_process_facts(rank: int, local_rank: int) -> ProcessFacts:
    """Return the facts of this process."""
    import torch

    # What two processes must share to exchange tensors and checkpoints.
    versions = {"python": sys.version.split()[0]}
    for name in _COMPARED:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return ProcessFacts(rank, socket.gethostname(), local_rank, versions, torch.cuda.device_count())


def publish_facts(store: Store, facts: ProcessFacts) -> None:
    """Make the facts of this process known to rank 0."""
    store.set(f"facts/{facts.rank}", json.dumps(asdict(facts)))


def gather_facts(store: Store, world_size: int, timeout_s: float) -> dict[int, ProcessFacts]:
    """Return the facts of the processes that came within the time, by rank."""
    arrived: dict[int, ProcessFacts] = {}

    def read_arrived() -> bool:
        for rank in range(world_size):
            if rank not in arrived and store.check([f"facts/{rank}"]):
                arrived[rank] = ProcessFacts(**json.loads(store.get(f"facts/{rank}")))
        return len(arrived) == world_size

    wait_until(read_arrived, timeout_s)
    return arrived


def measure_clock_offsets(store: Store, ranks: Sequence[int], timeout_s: float) -> dict[int, float]:
    """Return the seconds by which the clock of each rank is ahead of this one's; run on rank 0."""
    # By messages through the store: clocks must be compared before any link is known to work.
    offsets = {}
    for rank in ranks:
        answers: list[tuple[float, float]] = []
        for number in range(_ECHOES):
            sent = time.time()
            store.set(f"echo/{rank}/{number}", "")
            answer = f"clock/{rank}/{number}"
            if not wait_until(lambda key=answer: store.check([key]), timeout_s):  # type: ignore[misc]
                break
            received = time.time()
            # The request has taken about half of the time until the answer came.
            answers.append((received - sent, float(store.get(answer)) - (sent + received) / 2))
        if answers:
            offsets[rank] = min(answers)[1]
    return offsets


def answer_clock_requests(store: Store, rank: int, timeout_s: float) -> None:
    """Answer the requests of `measure_clock_offsets`; run on every other rank."""
    for number in range(_ECHOES):
        if not wait_until(lambda key=f"echo/{rank}/{number}": store.check([key]), timeout_s):  # type: ignore[misc]
            return
        store.set(f"clock/{rank}/{number}", repr(time.time()))


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
    if not wait_until(lambda: store.check(["token"]), timeout_s):
        return
    text = store.get("token").decode()
    path, token = json.loads(text) if text else ("", "")
    # A network file system may show a new file late.
    is_seen = bool(path) and wait_until(lambda: _read_text(path) == token, min(timeout_s, 5.0))
    store.set(f"sees/{rank}", "1" if is_seen else "")


def gather_folder_answers(store: Store, ranks: Sequence[int], timeout_s: float) -> list[int]:
    """Return the ranks that did not read the file of rank 0."""
    wait_until(lambda: all(store.check([f"sees/{rank}"]) for rank in ranks), timeout_s)
    return [rank for rank in ranks if not (store.check([f"sees/{rank}"]) and store.get(f"sees/{rank}"))]


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
