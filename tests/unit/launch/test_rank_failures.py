"""What became of a rank."""

import signal
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.launch import rank_failures as failures
from mlscale.runs.folder import RunFolder
from tests.unit.runs.checkpoint_files.saved_checkpoints import save


def test_a_rank_that_can_not_leave_a_message_is_reported_as_the_environment_s(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="logs"):
        failures.write_rank_failure(tmp_path, 0, MLScaleError("the disk is read-only"))
    error = failures.determine_failure_cause(tmp_path, 2, 0, failures.UNWRITTEN)
    assert (error.what, error.where, error.exit) == ("can't write logs", str(tmp_path / "logs"), Exit.ENVIRONMENT)
    assert error.why == "Not a directory"


def test_where_it_can_be_written_again_the_run_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    error = failures.determine_failure_cause(tmp_path, 2, 1, failures.UNWRITTEN)
    assert (error.what, error.exit) == (
        "rank 1 could not write to the run folder, not even why it ended", Exit.ENVIRONMENT,
    )  # fmt: skip
    assert error.fix == "mlscale runs resume last"
    assert not list((tmp_path / "logs").iterdir())


def test_an_error_that_was_left_is_reported(tmp_path: Path) -> None:
    failures.write_rank_failure(tmp_path, 1, MLScaleError("the data is gone"))
    assert failures.determine_failure_cause(tmp_path, 2, 1, 1).what == "the data is gone"


def test_one_rank_reports_the_failure_of_an_attempt(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert not failures.is_failure_reported(tmp_path)
    assert [failures.claim_failure_report(tmp_path) for _ in range(2)] == [True, False]
    assert failures.is_failure_reported(tmp_path)
    failures.clear_rank_failures(tmp_path)
    assert failures.claim_failure_report(tmp_path)
    assert failures.claim_failure_report(tmp_path / "absent")  # not writable: better twice than never


def test_ranks_that_left_no_message_are_named(tmp_path: Path) -> None:
    failures.write_rank_failure(tmp_path, 0, MLScaleError("peer lost", why="closed"))
    error = failures.explain_lost_ranks(tmp_path, 2)
    assert (error.what, error.exit) == ("rank 1 ended without a message", Exit.ENVIRONMENT)
    assert failures.explain_lost_ranks(tmp_path, 3).what == "ranks 1, 2 ended without a message"
    failures.write_rank_failure(tmp_path, 0, MLScaleError("timeout", why="too late"))
    assert failures.explain_lost_ranks(tmp_path, 2).what == "a collective timed out: rank 1 did not take part"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Gloo connectFullMesh failed with [gloo/transport/tcp/pair.cc] Connection refused", "peer lost"),
        ("[gloo/transport/tcp/pair.cc:533] Connection reset by peer", "peer lost"),
        ("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 3000ms for recv", "timeout"),
        ("an error of the model", ""),
    ],
)
def test_an_error_of_the_network_is_another_ranks(text: str, what: str) -> None:
    assert failures.classify_remote_failure(RuntimeError(text)) == what


def test_a_killed_rank_s_run_is_resumed_where_it_was_saved(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "net", command="train", config_yaml="seed: 0\n").path
    killed = (1, -signal.SIGKILL)
    command = f"mlscale runs resume {run.name.removeprefix('net-')}"
    assert failures.determine_failure_cause(run, 2, *killed).fix.startswith(f"{command}, which starts over")
    save(run / "checkpoints/step=10.ckpt", 10)
    for error in (failures.determine_failure_cause(run, 2, *killed), failures.explain_killed_fork_server(run)):
        assert error.fix.startswith(f"{command}, from step 10; with more memory, or fewer processes")


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGUSR1, Exit.TERMINATED), (signal.SIGHUP, Exit.TERMINATED)],
)
def test_a_stop_that_saved_nothing_is_not_75_and_names_what_is_there(
    tmp_path: Path, signum: signal.Signals, code: Exit
) -> None:
    run = RunFolder.create(tmp_path, "net", command="train", config_yaml="seed: 0\n").path
    save(run / "checkpoints/step=10.ckpt", 10)
    error = failures.explain_unsaved_stop(run, signum)
    assert (error.what, error.exit) == (f"stopped by {signum.name}, nothing new is saved", code)
    assert error.fix.endswith(", from step 10")


@pytest.mark.parametrize(("code", "has_failed"), [(Exit.SAVED, False), (Exit.TERMINATED, False), (Exit.BUG, True)])
def test_a_rank_that_was_stopped_has_not_failed(tmp_path: Path, code: Exit, has_failed: bool) -> None:
    assert not failures.has_rank_failures(tmp_path)
    failures.write_rank_failure(tmp_path, 1, MLScaleError("stopped, or not", exit=code))
    assert failures.has_rank_failures(tmp_path) == has_failed
