"""Let the ranks of an external launcher agree on one run: the first prepares it, the others learn of it by a store.

No files: one that an earlier job left behind would send a rank into that job's run. A store may outlive a start as
well, for torchrun's agents keep theirs over restarts and changes of size. So each start is a round with a random name,
and the plan of rank 0 names the random number of each rank that it is for: a rank can't take an earlier plan for its
own.

The address at which ranks of an external launcher meet: MASTER_ADDR and MASTER_PORT, or derived from the job.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank
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


_LOOPBACK = "127.0.0.1"
# Below the ports that systems give to outgoing connections (32768 and up on Linux), above those of services.
_FIRST_PORT, _PORTS = 15000, 15000
_NODE_LISTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
# Variables that are equal in all processes of one start and differ between two: of SLURM, of PMIx, of Open MPI 4.
_JOB_NAMES = (("SLURM_JOB_ID", "SLURM_STEP_ID"), ("PMIX_NAMESPACE",), ("OMPI_MCA_ess_base_jobid",), ("PMI_JOBID",))
# A name, or numbers in brackets, of a list such as gpu[01-03,7],login1.
_HOSTS = re.compile(r"([^,\[\]]+)((?:\[[^\]]*\][^,\[\]]*)*)(?:,|$)")
_NUMBERS = re.compile(r"\[([^\]]*)\]([^\[\]]*)")


def find_meeting_address(external: ExternalRank) -> tuple[str, int]:
    """Return the host and port where rank 0 listens.

    Raises:
        MLScaleError: the launcher does not set them, and they can't be derived; the message names the variable to set.
    """
    environment = external.environment
    host = environment.get("MASTER_ADDR") or _derive_host(external)
    if not host:
        raise _create_unset_error(external, "MASTER_ADDR", "<the host of rank 0>")
    typed = environment.get("MASTER_PORT")
    if typed is None and (port := _derive_port(external)):
        return host, port
    if typed is None:
        raise _create_unset_error(external, "MASTER_PORT", "29500")
    if not typed.isdigit() or not 0 < int(typed) < 65536:
        raise MLScaleError(
            f"MASTER_PORT is {typed!r}",
            where="environment: MASTER_PORT",
            why="a port is a number from 1 to 65535",
            fix="export MASTER_PORT=29500",
        )
    return host, int(typed)


def _derive_host(external: ExternalRank) -> str | None:
    environment = external.environment
    if external.launcher.name == "srun":
        nodes = next((environment[name] for name in _NODE_LISTS if environment.get(name)), "")
        return next(iter(expand_host_list(nodes)), None)
    local = environment.get(external.launcher.local_size, "") if external.launcher.local_size else ""
    # mpirun names no host to its processes, but all of them are on this one.
    return _LOOPBACK if local == str(external.world_size) else None


def _derive_port(external: ExternalRank) -> int | None:
    """Return a port that all processes of this start derive, and hardly another start on this machine."""
    if external.launcher.rank == "RANK":
        return None
    environment = external.environment
    for names in _JOB_NAMES:
        values = [environment.get(name, "") for name in names]
        if values[0]:
            return _FIRST_PORT + zlib.crc32("/".join(values).encode()) % _PORTS
    # Processes of one mpirun on one machine have one parent.
    return _FIRST_PORT + os.getppid() % _PORTS


def _create_unset_error(external: ExternalRank, variable: str, value: str) -> MLScaleError:
    launcher = external.launcher
    export = {"Open MPI's mpirun": f"mpirun -x {variable}={value} …", "mpirun": f"mpirun -genv {variable} {value} …"}
    return MLScaleError(
        f"{variable} is not set for rank {external.rank} of {external.world_size}",
        where=external.describe_variables(),
        why=f"ranks meet at the host of rank 0, which {launcher.name} does not name to processes on several machines"
        if launcher.local_size.startswith(("OMPI", "MPI"))
        else "ranks meet at the host and port of rank 0",
        fix=f"{export.get(launcher.name, f'export {variable}={value}')}; "
        f"or unset {launcher.rank} {launcher.size}, where they are left over from something else",
    )


def expand_host_list(text: str) -> list[str]:
    """Return the hosts of a SLURM node list: `n[01-03,7],login` is n01, n02, n03, n7, login."""
    hosts: list[str] = []
    for name, numbers in _HOSTS.findall(text):
        expanded = [name]
        for ranges, rest in _NUMBERS.findall(numbers):
            expanded = [f"{head}{number}{rest}" for head in expanded for number in _expand_ranges(ranges)]
        hosts += expanded
    return hosts


def _expand_ranges(text: str) -> list[str]:
    """Return the numbers of `01-03,7`; leading zeros are kept."""
    numbers: list[str] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if last and first.isdigit() and last.isdigit():
            numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        else:
            numbers.append(part)
    return numbers


def count_local_ranks(external: ExternalRank) -> int | None:
    """Return the number of ranks on this machine; None where the launcher does not set it."""
    environment = external.environment
    if external.launcher.name != "srun":
        text = environment.get(external.launcher.local_size, "")
        return int(text) if text.isdigit() else None
    counts, node = _list_task_counts(environment), environment.get("SLURM_NODEID", "")
    return counts[int(node)] if node.isdigit() and int(node) < len(counts) else None


def _list_task_counts(environment: Mapping[str, str]) -> list[int]:
    """Return the tasks of each node of srun's step: 2(x3),1 on four nodes is 2, 2, 2, 1."""
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match:
            counts += [int(match[1])] * int(match[2] or 1)
    return counts
