"""Calls of SLURM's programs: the environment of a job, and what is reported where a program fails."""

from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.launch.slurm import slurm_commands
from mlscale.launch.slurm.slurm_commands import filter_environment, release_job, run_slurm, submit_held_script


def test_variables_of_an_allocation_stay_behind() -> None:
    kept = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "a", "MLSCALE_SECRET_KEY": "x", "PATH": "/bin"}
    left = ["SLURM_JOB_ID", "SLURM_NTASKS_PER_NODE", "SRUN_CPUS_PER_TASK", "PMI_RANK", "RANK", "WORLD_SIZE"]
    left += ["LOCAL_RANK", "MASTER_ADDR", "MLSCALE_JOB_RUN", "TORCHELASTIC_RUN_ID"]
    assert filter_environment({**kept, **dict.fromkeys(left, "1")}) == kept


def make_program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for stand-ins of SLURM's programs."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_a_submission(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_program(
        programs, "sbatch", f'echo "$@" "$MLSCALE_RUN_KEY" "$SLURM_JOB_ID" > {programs}/called; echo "12;mini"'
    )
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    assert submit_held_script(Path("/x/job.sh"), {"MLSCALE_RUN_KEY": "k"}) == "12"
    assert (programs / "called").read_text().split() == ["--parsable", "--export=ALL", "--hold", "/x/job.sh", "k"]


def test_the_reason_of_a_refusal(programs: Path) -> None:
    make_program(programs, "sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1")
    with pytest.raises(MLScaleError) as caught:
        submit_held_script(Path("/x/job.sh"))
    assert (caught.value.exit, caught.value.why) == (5, "Batch job submission failed: Invalid account")


def test_without_slurm(programs: Path) -> None:
    with pytest.raises(MLScaleError, match="sbatch9 is not installed here"):
        run_slurm(["sbatch9"])


def test_a_controller_that_does_not_respond(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_commands, "_SECONDS", 0.1)
    make_program(programs, "squeue", "exec sleep 5")
    with pytest.raises(MLScaleError, match="squeue did not finish"):
        run_slurm(["squeue"])


def test_a_job_that_can_not_be_released_is_cancelled(programs: Path) -> None:
    make_program(programs, "scontrol", "exit 1")
    make_program(programs, "scancel", f"echo $1 > {programs}/cancelled")
    with pytest.raises(MLScaleError):
        release_job("12")
    assert (programs / "cancelled").read_text() == "12\n"
