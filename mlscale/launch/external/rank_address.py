"""The address at which ranks of an external launcher meet: MASTER_ADDR and MASTER_PORT, or derived from the job."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping

from mlscale.errors import MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank

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
