"""Start and end of a job: what is recorded, when it is requeued, and when it stops."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.slurm import job_guard
from mlscale.launch.slurm.job_guard import record_job
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import JobRecord, read_job_record

RECORD = JobRecord("slurm", "mini", "7", "2026-01-05T17:06:27+00:00", "/x/job.log", max_requeues=4, max_failures=2)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    folder = RunFolder.create(tmp_path, "resnet", command="train", config_yaml="seed: 0\n", is_queued=True)
    RECORD.write(folder.path)
    return folder


def read_record(run: RunFolder) -> JobRecord:
    record = read_job_record(run.path)
    assert record is not None
    return record


def start(run: RunFolder) -> int:
    return record_job("start", run.path)


def end(run: RunFolder, code: int) -> int:
    return record_job("end", run.path, code)


def test_a_queued_run_has_no_attempt_yet(run: RunFolder) -> None:
    assert run.status == "queued"
    run.begin_queued("seed: 0\n", {"world_size": 2}, data_version="d1")
    assert (run.status, run.run["data_version"], len(run.run["attempts"])) == ("running", "d1", 1)


@pytest.mark.parametrize("code", [0, 2, 3, 4, 130])
def test_ends_that_another_start_would_not_change(run: RunFolder, code: int) -> None:
    assert (start(run), end(run, code)) == (0, code)
    (recorded,) = read_record(run).starts
    assert (recorded.job, recorded.nodes, recorded.step, recorded.code) == ("7", "n[1-2]", 0, code)


def test_an_error_of_the_first_rank_outweighs_how_srun_has_ended_the_others(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSCALE_JOB_RUN", str(run.path))
    assert start(run) == 0
    wrong = MLScaleError("data.batch_size=7 does not divide by the secret")
    with (
        pytest.raises(MLScaleError),
        job_guard.report_rank_error(str(run.path), lambda text: text.replace("secret", "*")),
    ):
        raise wrong
    # srun has ended the other ranks by SIGTERM, 143, which the script takes for a kill.
    assert end(run, 137) == 2
    (recorded,) = read_record(run).starts
    assert (recorded.code, recorded.cause) == (2, "data.batch_size=7 does not divide by the *")


@pytest.mark.parametrize("code", [Exit.BUG, Exit.ENVIRONMENT, Exit.SAVED, Exit.TERMINATED])
def test_code_and_cause_are_of_one_report(run: RunFolder, monkeypatch: pytest.MonkeyPatch, code: Exit) -> None:
    monkeypatch.setenv("MLSCALE_JOB_RUN", str(run.path))
    assert start(run) == 0
    with pytest.raises(MLScaleError), job_guard.report_rank_error(str(run.path), str):
        raise MLScaleError("a rank was lost", exit=code)
    assert end(run, 137) == 75
    (recorded,) = read_record(run).starts
    assert (recorded.code, recorded.cause) == (code, "a rank was lost")


def test_the_cause_is_the_error_of_a_users_own_code(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSCALE_JOB_RUN", str(run.path))
    assert start(run) == 0
    with pytest.raises(ValueError, match="NaN"), job_guard.report_rank_error(str(run.path), str):
        raise ValueError("Invalid value NaN")
    assert end(run, 1) == 75
    (recorded,) = read_record(run).starts
    assert (recorded.code, recorded.cause) == (Exit.BUG, "ValueError: Invalid value NaN")


def test_a_job_that_was_cancelled_is_not_requeued(run: RunFolder) -> None:
    assert start(run) == 0
    replace(read_record(run), cancelled="2026-01-05T17:08:27+00:00").write(run.path)
    assert end(run, 137) == 137


def test_progress_is_requeued_until_the_limit(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for restart in range(5):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        monkeypatch.setattr(job_guard, "find_saved_step", lambda _, step=10 * restart: step)
        assert start(run) == 0
        monkeypatch.setattr(job_guard, "find_saved_step", lambda _, step=10 * restart + 10: step)
        assert end(run, 75) == (75 if restart < 4 else 5)
    assert "requeued 4 times (launch.max_requeues)" in read_record(run).stopped


def test_a_crash_loop_stops_with_its_causes(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert (start(run), end(run, 137)) == (0, 75)
    assert (start(run), end(run, 1)) == (0, 1)
    stopped = read_record(run).stopped
    assert stopped == "stopped after 2 failures in a row at step 0: killed by signal 9; exit code 1; see the log"
    assert "start 1  n[1-2], step 0: killed by signal 9" in capsys.readouterr().err
    assert run.results["launch"]["sentence"] == stopped
    assert start(run) == 5  # whoever requeues it


def test_a_node_that_fails_reports_nothing(run: RunFolder) -> None:
    assert start(run) == 0
    assert start(run) == 0
    assert [bool(item.cause) for item in read_record(run).starts] == [True, False]
    assert start(run) == 5
    assert "its node failed, or it was killed or preempted without notice" in read_record(run).stopped


def test_stops_from_outside_are_requeued_and_no_failures(run: RunFolder) -> None:
    for _ in range(4):
        assert (start(run), end(run, 143)) == (0, 75)


def test_the_words_of_an_earlier_attempt_are_no_cause(run: RunFolder) -> None:
    run.seal_run("interrupted", sentence="stopped by SIGUSR1 after optimizer step 7")
    start(run)
    end(run, 138)
    assert read_record(run).starts[-1].cause.startswith("the signal ahead of the time limit came while it started")
    end(run, 137)
    assert read_record(run).starts[-1].code == 138


def test_a_rank_that_the_signal_ended_is_the_cause_of_what_the_others_saw(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSCALE_JOB_RUN", str(run.path))
    start(run)
    with pytest.raises(MLScaleError), job_guard.report_rank_error(str(run.path), str):
        raise MLScaleError("rank 1 ended without a message", exit=Exit.ENVIRONMENT)
    end(run, 138)
    assert "launch.time is too short, or launch.grace_s too long" in read_record(run).starts[-1].cause


def test_a_secret_that_is_missing_is_named(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    replace(RECORD, variables=("HOME", "MLSCALE_SECRET_KEY")).write(run.path)
    assert start(run) == 5
    assert "lacks MLSCALE_SECRET_KEY" in capsys.readouterr().err
    assert not read_record(run).starts


def test_a_folder_that_the_node_does_not_see(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="not visible on this node") as caught:
        record_job("start", tmp_path / "elsewhere")
    assert caught.value.exit == 5


def test_files_of_the_job_may_change_after_the_seal(run: RunFolder) -> None:
    (run.path / "logs/job.log").write_text("1")
    (run.path / "job.sh").write_text("1")
    run.seal_run("done")
    RECORD.write(run.path)
    (run.path / "logs/job.log").write_text("2")
    assert not run.find_changed_artefacts()
    assert "job.sh" not in (run.manifest or {})["artefacts"]


def test_the_task_of_an_array_names_itself() -> None:
    assert job_guard.get_job_id({"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "8"}) == "5_3"
