"""What `mlscale runs` reports of a run whose job has ended: its own words, else what its job could record."""

from pathlib import Path

import pytest

from mlscale.commands.runs.job_actions import describe_job, find_end_cause
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import JobRecord, JobStart

BEFORE, AFTER = "2020-01-01T00:00:00+00:00", "2090-01-01T00:00:00+00:00"  # the time at which a test seals its run


def make_run(root: Path, *starts: JobStart, sentence: str = "", stopped: str = "") -> tuple[RunFolder, JobRecord]:
    run = RunFolder.create(root, "resnet", command="train", config_yaml="seed: 0\n", seed=0, overrides=[])
    record = JobRecord("slurm", "mini", "7", BEFORE, "job.log", 50, 3, starts=starts, stopped=stopped)
    record.write(run.path)
    if sentence:
        run.seal_run(metrics={}, sentence=sentence, status="failed")
    return run, record


@pytest.mark.parametrize(
    ("started", "sentence", "stopped", "cause"),
    [
        (BEFORE, "", "", "ended without a report: its node failed"),
        (BEFORE, "the loss is NaN", "", "the loss is NaN"),
        (AFTER, "the loss is NaN", "", "ended without a report: its node failed"),  # an earlier start has sealed it
        (BEFORE, "", "stopped after 3 failures", "stopped after 3 failures"),
    ],
)
def test_the_cause_of_an_end(tmp_path: Path, started: str, sentence: str, stopped: str, cause: str) -> None:
    run, record = make_run(tmp_path, JobStart("7", 0, "n1", started, 5), sentence=sentence, stopped=stopped)
    assert find_end_cause(run, record).startswith(cause)


@pytest.mark.parametrize(
    ("status", "shown"), [("running", "running"), ("crashed", "ended without"), ("queued", "ended")]
)
def test_a_start_runs_only_while_its_job_does(tmp_path: Path, status: str, shown: str) -> None:
    run, _ = make_run(tmp_path, JobStart("7", 0, "n1", BEFORE, 5))
    rows = dict(describe_job(run, status))
    assert str(rows["start 1"]).startswith(f"job 7 on n1, step 5: {shown}")
