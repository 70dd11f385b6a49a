"""What `mlscale runs` reports of a run whose job has ended, or was never submitted."""

import json
from pathlib import Path

import pytest

from mlscale.commands.runs.job_actions import describe_job, find_end_cause, find_run_statuses
from mlscale.commands.runs.run_list import describe_sweep, list_lost_runs
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


@pytest.mark.parametrize("ended", [True, False])
def test_a_run_whose_submission_was_killed_is_lost_and_one_that_is_being_submitted_waits(
    tmp_path: Path, ended: bool
) -> None:
    run = RunFolder.create(
        tmp_path, "resnet", command="train", config_yaml="seed: 0\n", seed=0, overrides=[], is_queued=True
    )
    if ended:
        document = json.loads((run.path / "run.json").read_text())
        document["attempts"][-1]["pid_start"] -= 1  # another process had this number
        (run.path / "run.json").write_text(json.dumps(document))
        run = RunFolder.open(run.path)
    statuses = find_run_statuses([run])
    assert statuses == {run.id: "not submitted" if ended else "queued"}
    assert list_lost_runs([run], statuses) == ([run] if ended else [])
    answer = describe_sweep(run.path.parent, [run])
    assert answer.exit == (4 if ended else 0)
    shown = "not submitted: the command that was to submit its job ended before"
    assert any(shown in note for note in answer.notes) == ended
