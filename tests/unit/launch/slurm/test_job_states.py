"""States of jobs, from what SLURM's programs print, and the status of a run that follows."""

from dataclasses import replace

import pytest

from mlscale.errors import MLScaleError
from mlscale.launch.scheduled_jobs import describe_run_status
from mlscale.launch.slurm import job_states
from mlscale.launch.slurm.job_states import JobState, parse_job_record, parse_queue
from mlscale.runs.job_record import JobRecord, JobStart

RECORD = JobRecord("slurm", "mini", "7", "2026-01-05T17:06:27+00:00", "/x/job.log", 50, 3)
STARTED = RECORD.add_start(JobStart("7", 0, "n1", "2026-01-05T17:06:27+00:00", 0))


def test_queue() -> None:
    text = "5_3|PENDING|JobArrayTaskLimit\n5_0|RUNNING|None\n6|COMPLETING|None\nslurm_load_jobs error\n"
    assert parse_queue(text) == {
        "5_3": JobState("queued", "JobArrayTaskLimit"),
        "5_0": JobState("running"),
        "6": JobState("running"),
    }


@pytest.mark.parametrize(
    ("state", "word"),
    [("CANCELLED by 0", "cancelled"), ("CANCELLED+", "cancelled"), ("TIMEOUT", "timed out"), ("BOOT_FAIL", "failed")],
)
def test_ended_jobs(state: str, word: str) -> None:
    assert parse_job_record(f"JobId=7 JobState={state} Reason=None").word == word


def test_a_record_without_a_state() -> None:
    with pytest.raises(MLScaleError, match="no state"):
        parse_job_record("slurm_load_jobs error: Invalid job id specified")


@pytest.mark.parametrize(
    ("status", "record", "word", "shown"),
    [
        ("queued", RECORD, "queued", "queued"),
        ("interrupted", STARTED, "queued", "requeued"),
        ("elsewhere", STARTED, "running", "running"),
        ("elsewhere", STARTED, "node failed", "node failed"),
        ("queued", RECORD, "vanished", "vanished"),
        ("queued", RECORD, "failed", "crashed"),
        ("queued", RECORD, "elsewhere", "queued"),
        ("interrupted", STARTED, "cancelled", "interrupted"),
        ("done", STARTED, "vanished", "done"),
    ],
)
def test_status_of_a_run(status: str, record: JobRecord, word: str, shown: str) -> None:
    assert describe_run_status(status, record, JobState(word)) == shown


def test_jobs_of_another_cluster_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_states, "read_cluster_name", lambda: "other")
    monkeypatch.setattr(job_states, "run_slurm", lambda words: "7|RUNNING|None\n" if words[0] == "squeue" else 1 / 0)
    assert job_states.find_slurm_states([RECORD])["7"] == JobState("elsewhere", "on the cluster mini")


def test_without_slurm_the_state_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise MLScaleError("scontrol is not installed here")

    monkeypatch.setattr(job_states, "read_cluster_name", fail)
    assert job_states.find_slurm_states([RECORD])["7"] == JobState("unknown", "scontrol is not installed here")
    assert describe_run_status("queued", RECORD, JobState("unknown")) == "queued"


@pytest.mark.parametrize(
    ("scontrol", "sacct", "word"),
    [("JobState=NODE_FAIL", "", "node failed"), (None, "REQUEUED\nCOMPLETED\n", "ended"), (None, None, "vanished")],
)
def test_sacct_is_asked_where_the_controller_has_forgotten_a_job(
    monkeypatch: pytest.MonkeyPatch, scontrol: str | None, sacct: str | None, word: str
) -> None:
    printed = {"squeue": "", "scontrol": scontrol, "sacct": sacct}

    def run_slurm(words: list[str]) -> str:
        text = printed[words[0]]
        if text is None:
            raise MLScaleError(f"{words[0]} failed")
        return text

    monkeypatch.setattr(job_states, "read_cluster_name", lambda: "mini")
    monkeypatch.setattr(job_states, "run_slurm", run_slurm)
    assert job_states.find_slurm_states([RECORD])["7"].word == word


@pytest.mark.parametrize("word", ["unknown", "vanished"])
def test_a_job_that_stopped_for_good_has_crashed_whatever_slurm_knows(word: str) -> None:
    assert (
        describe_run_status("queued", replace(RECORD, stopped="stopped after 3 failures"), JobState(word)) == "crashed"
    )
