"""Let the ranks of an external launcher agree on one run: the first prepares it, the others learn of it by a store.

No files: one that an earlier job left behind would send a rank into that job's run. A store may outlive a start as
well, for torchrun's agents keep theirs over restarts and changes of size. So each start is a round with a random name,
and the plan of rank 0 names the random number of each rank that it is for: a rank can't take an earlier plan for its
own.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank
from mlscale.launch.external.rank_address import find_meeting_address
from mlscale.runs.host import processes as process

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, but not listed

_POLL_SECONDS = 0.1
_NOTICE_SECONDS = 10.0  # after which a wait is reported
# torchrun's agents serve a store before they start ranks: one that does not answer is gone. torch tries it twice.
_AGENT_SECONDS = 4.0
_PREFIX = "mlscale"


@dataclass(frozen=True)
class RankFacts:
    """What rank 0 knows of each rank.

    Attributes:
        nonce: a random text of its start.
        host: its machine's name.
        node: the name of its node, of which one machine may have several, as the launcher counts them.
        cores: the CPU cores that it may use.
        agent: its parent process, which torchrun keeps over restarts.
    """

    nonce: str
    host: str
    node: str
    cores: tuple[int, ...]
    agent: str

    @classmethod
    def collect_facts(cls, external: ExternalRank) -> RankFacts:
        """Return the facts of this process."""
        environment, host, parent = external.environment, socket.gethostname(), os.getppid()
        names = (environment.get(name) for name in ("GROUP_RANK", "SLURM_NODEID"))
        node = next((name for name in names if name), host)
        cores = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
        job = environment.get("TORCHELASTIC_RUN_ID", "")
        agent = f"{host}/{parent}/{process.read_start_ticks(parent)}/{job}"
        return cls(secrets.token_hex(8), host, node, cores, agent)


def open_store(external: ExternalRank, timeout_s: float) -> Store:
    """Return the store of all ranks; rank 0 serves it, unless torchrun's agent does.

    Raises:
        MLScaleError: the address is unknown, in use or not reached within the time (exit code 5).
    """
    # Attempts to connect before rank 0 listens are no news.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    host, port = find_meeting_address(external)
    from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]  # public, not listed

    has_agent = external.environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = external.rank == 0 and not has_agent
    connect_s = min(timeout_s, _AGENT_SECONDS) if has_agent else timeout_s
    try:
        server = TCPStore(host, port, is_master=serves, timeout=timedelta(seconds=connect_s), wait_for_workers=False)
        server.set_timeout(timedelta(seconds=timeout_s))
    except (DistError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0]
        raise MLScaleError(
            f"rank 0 can't listen at {host}:{port}" if serves else f"rank {external.rank} did not reach {host}:{port}",
            where=external.describe_variables(),
            why=why,
            fix="export MASTER_PORT=<another port>, in all ranks"
            if serves
            else "check that rank 0 started, and that MASTER_ADDR and MASTER_PORT name its host and an open port",
            exit=Exit.ENVIRONMENT,
        ) from error
    return PrefixStore(_PREFIX, server)


def get_round_store(shared: Store, name: str) -> Store:
    """Return the part of the store that belongs to one round."""
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # public, but not listed

    return PrefixStore(name, shared)


def build_error_record(error: MLScaleError) -> dict[str, Any]:
    """Return an error as rank 0 sends it: its text and its exit code."""
    return {"text": str(error), "exit": int(error.exit)}


def wait_until(
    is_done: Callable[[], bool],
    get_limit: Callable[[], float],
    create_error: Callable[[], MLScaleError],
    describe: Callable[[], str] | None = None,
) -> None:
    """Wait until `is_done` returns True.

    Args:
        get_limit: returns the seconds to wait at most.
        describe: returns what a long wait is for, to be printed once.

    Raises:
        MLScaleError: it takes longer than `seconds`, or the store is gone with the process that served it.
    """
    begin, noticed = time.monotonic(), False
    try:
        while not is_done():
            waited = time.monotonic() - begin
            if waited > get_limit():
                raise create_error()
            if describe and not noticed and waited > _NOTICE_SECONDS:
                noticed = True
                print(f"waiting   {describe()}, up to {get_limit():g} s", file=sys.stderr, flush=True)
            time.sleep(_POLL_SECONDS)
    except RuntimeError as error:  # torch's DistError and what its C++ code raises
        lost = MLScaleError(
            "the process that serves the ranks' store is gone",
            why=str(error).strip().splitlines()[0],
            fix="look at the output of rank 0, or of torchrun's first node",
            exit=Exit.ENVIRONMENT,
        )
        raise lost from error
