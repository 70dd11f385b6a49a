"""Where ranks meet: the launcher's variables, SLURM's list of nodes, and ports that differ between jobs."""

from __future__ import annotations

import pytest

from mlscale.errors import MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank, find_external_rank
from mlscale.launch.external.rank_meeting import (
    count_local_ranks,
    expand_host_list,
    find_meeting_address,
)

_SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "77",
         "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
         "SLURM_NODEID": "1"}  # fmt: skip
_MPI = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "prterun-1@1"}  # fmt: skip


def find(environment: dict[str, str]) -> ExternalRank:
    found = find_external_rank(environment)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n[01-03,7],login1", ["n01", "n02", "n03", "n7", "login1"]),
        ("n1", ["n1"]),
        ("a[1-2]b[3-4],c", ["a1b3", "a1b4", "a2b3", "a2b4", "c"]),
        ("rack-1,rack-2-n[9-11]", ["rack-1", "rack-2-n9", "rack-2-n10", "rack-2-n11"]),
        ("", []),
    ],
)
def test_a_node_list_is_expanded(text: str, hosts: list[str]) -> None:
    assert expand_host_list(text) == hosts


def test_torchrun_sets_the_address() -> None:
    environment = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "head", "MASTER_PORT": "29500"}
    assert find_meeting_address(find(environment)) == ("head", 29500)


def test_ranks_of_srun_meet_at_the_first_node_at_a_port_of_their_step() -> None:
    host, port = find_meeting_address(find(_SRUN))
    assert host == "gpu07"
    assert 15000 <= port < 30000
    assert find_meeting_address(find({**_SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"})) == (host, port)
    assert find_meeting_address(find({**_SRUN, "SLURM_STEP_ID": "1"}))[1] != port
    assert find_meeting_address(find({**_SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"})) == ("10.0.0.1", 1234)


def test_ranks_of_one_mpirun_on_one_machine_meet_at_the_loopback() -> None:
    host, port = find_meeting_address(find(_MPI))
    assert (host, port) == ("127.0.0.1", find_meeting_address(find(_MPI))[1])
    assert find_meeting_address(find({**_MPI, "PMIX_NAMESPACE": "prterun-2@1"}))[1] != port


@pytest.mark.parametrize(
    ("environment", "what", "fix"),
    [
        ({**_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "MASTER_ADDR is not set", "mpirun -x MASTER_ADDR="),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not set", "MASTER_ADDR=<the host of rank 0>; or unset RANK"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "h"}, "MASTER_PORT is not set", "export MASTER_PORT=29500"),
        ({**_SRUN, "MASTER_PORT": "no"}, "MASTER_PORT is 'no'", "export MASTER_PORT=29500"),
    ],
)
def test_an_address_that_is_unknown_names_the_variable(environment: dict[str, str], what: str, fix: str) -> None:
    with pytest.raises(MLScaleError, match=what) as refused:
        find_meeting_address(find(environment))
    assert fix in refused.value.fix


def test_the_ranks_of_a_machine_are_counted() -> None:
    assert count_local_ranks(find(_SRUN)) == 2
    assert count_local_ranks(find({**_SRUN, "SLURM_NODEID": "2"})) == 1
    assert count_local_ranks(find({**_SRUN, "SLURM_NODEID": "3"})) is None
    assert count_local_ranks(find(_MPI)) == 2
    assert count_local_ranks(find({"RANK": "0", "WORLD_SIZE": "2"})) is None
