"""Runs on real SLURM daemons: whatever ends a job, the run resumes in the same folder and ends bitwise identical."""

import time
from pathlib import Path

import pytest

from scripts.resume_layouts import HELD_START, signal_starting_job
from scripts.same_run import differences
from scripts.signal_matrix import JOB_RECEIVERS
from tests.slurm.conftest import Site, read_json, read_record, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def expect_identical(undisturbed: Path, run: Path, starts: int) -> None:
    """The run is done after so many starts, in one folder, and like the undisturbed one."""
    record = read_record(run)
    assert len(record.starts) >= starts, record
    assert read_json(run / "manifest.json")["status"] == "done"
    assert not differences(undisturbed, run)


def test_a_time_limit(site: Site, undisturbed: Path) -> None:
    site.be_slow()
    begin = time.monotonic()
    run = site.submit("launch.time=20", "launch.grace_s=150")
    site.wait_for_steps()
    # The limit is moved here, to within the grace: one that is short from the start is reached while a job still
    # imports, on a machine that is busy.
    job, minutes = read_record(run).id, int((time.monotonic() - begin) / 60) + 2
    site.cluster.call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    wait_until(lambda: read_record(run).starts[0].code is not None, "the time limit")
    site.cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=20")
    site.be_quick()
    record = site.wait_for_end(run)
    assert any(start.cause.startswith("stopped by SIGUSR1 after") for start in record.starts)
    expect_identical(undisturbed, run, starts=2)
    assert len({start.job for start in record.starts}) == 1
    text = (run / "logs/job.log").read_text()
    assert "job       requeued from step" in text
    assert "attempt 2: from last.ckpt, step" in text


def test_a_preemption(site: Site, undisturbed: Path) -> None:
    site.be_slow()
    run = site.submit("launch.partition=low")
    site.wait_for_steps()
    words = ["sbatch", "--parsable", "-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3"]
    site.cluster.call(*words)
    wait_until(lambda: read_record(run).starts[0].code is not None, "the preemption")
    site.be_quick()
    record = site.wait_for_end(run)
    assert record.starts[0].cause.startswith("stopped by SIGTERM after optimizer step")
    expect_identical(undisturbed, run, starts=2)


@pytest.mark.parametrize("receivers", JOB_RECEIVERS)
def test_a_signal_while_a_job_starts(site: Site, undisturbed: Path, receivers: str) -> None:
    """As SLURM ends what a node still ran that it had lost: also what has started there since."""
    run = site.submit(HELD_START)
    signal_starting_job(site.folder, receivers)
    record = site.wait_for_end(run)
    assert (record.starts[0].code, record.starts[0].cause) == (143, "killed by signal 15"), record
    expect_identical(undisturbed, run, starts=2)


def test_a_job_that_is_cancelled_while_it_starts_is_not_requeued(site: Site) -> None:
    run = site.submit(HELD_START)
    job = read_record(run).id
    wait_until((site.folder / "begun").exists, "start")
    site.cluster.call("scancel", job)
    (site.folder / "sent").touch()
    record = site.wait_for_end(run)
    assert len(record.starts) <= 1, record
    assert "CANCELLED" in site.cluster.call("scontrol", "show", "job", job)


def test_a_crash_loop_stops_with_its_causes(site: Site) -> None:
    crash = "+callbacks.crash={_target_:tests.slurm.pace.Crash,step:12}"
    run = site.submit(crash, "launch.max_failures=2")
    record = site.wait_for_end(run)
    # The first start reached a new checkpoint; the two after it did not.
    assert [start.code for start in record.starts] == [137, 137, 137][: len(record.starts)]
    assert record.stopped.startswith("stopped after 2 failures in a row at step 10: killed by signal 9")
    assert read_json(run / "results/launch.json")["sentence"] == record.stopped
    assert "start 1  n1, step 0: killed by signal 9" in (run / "logs/job.log").read_text()
    assert "crashed" in site.call("runs", "ls")
    # It can be submitted again by hand; the run is the same.
    site.call("runs", "resume", "last")
    assert len(read_record(run).earlier) == len(record.starts)


def test_a_limit_of_requeues(site: Site) -> None:
    site.be_slow()
    run = site.submit("launch.max_requeues=0")
    site.wait_for_steps()
    time.sleep(1)
    site.cluster.call("scancel", "--batch", "--signal=USR1", read_record(run).id)
    record = site.wait_for_end(run)
    assert "requeued 0 times (launch.max_requeues)" in record.stopped
    assert record.starts[0].code == 75
