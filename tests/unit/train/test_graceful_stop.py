"""Signals: the run stops between two steps, with everything saved; a second Ctrl-C stops at once."""

import os
import pty
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.host.processes import STOP_SIGNALS
from mlscale.train import graceful_stop as signals
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.trainer_patches import apply_trainer_patches
from tests.unit.fitting import At, batches, classifier, fit, trainer


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    with signals.handle_stop_signals():
        yield


def stopped(path: Path, signum: int, at: int, **arguments: Any) -> MLScaleError:
    def kill(run: Any, module: Any, index: int) -> None:
        if index == at:
            os.kill(os.getpid(), signum)

    run = trainer(callbacks=[At(kill), signals.StopOnSignal(str(path))], enable_checkpointing=True, **arguments)
    apply_trainer_patches(run)
    with pytest.raises(MLScaleError) as caught:
        fit(run, classifier(), batches(6))
    return caught.value


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        (signal.SIGTERM, Exit.TERMINATED),
        (signal.SIGHUP, Exit.TERMINATED),
        (signal.SIGINT, Exit.INTERRUPTED),
        (signal.SIGUSR1, Exit.SAVED),
    ],
)
def test_the_run_stops_after_the_step_and_is_saved(tmp_path: Path, signum: signal.Signals, code: Exit) -> None:
    error = stopped(tmp_path / "last.ckpt", signum, at=2)
    assert error.exit is code
    assert f"stopped by {signum.name} after optimizer step 3, saved to" in str(error)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_a_launcher_that_starts_again_gets_75_for_sigterm_once_it_is_saved(tmp_path: Path) -> None:
    with signals.handle_stop_signals(is_restarted=True):
        assert stopped(tmp_path / "last.ckpt", signal.SIGTERM, at=2).exit is Exit.SAVED
    with signals.handle_stop_signals(is_restarted=True):
        assert signals._choose_exit(signal.SIGTERM, saved=False) is Exit.TERMINATED
        assert signals._choose_exit(signal.SIGINT, saved=True) is Exit.INTERRUPTED
    for request in (signal.SIGUSR1, signals._TIME_IS_UP):
        assert signals._choose_exit(request, saved=False) is Exit.TERMINATED


def test_what_found_no_room_is_not_called_saved(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def kill(run: Any, module: Any, index: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        os.kill(os.getpid(), signal.SIGTERM)

    stop = signals.StopOnSignal(str(tmp_path / "last.ckpt"))
    run = trainer(callbacks=[At(kill), stop], enable_checkpointing=True, plugins=[VerifiedCheckpointIO()])
    apply_trainer_patches(run)
    try:
        with pytest.raises(MLScaleError) as caught:
            fit(run, classifier(), batches(6))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.what == "stopped by SIGTERM after optimizer step 1"
    assert caught.value.fix == "mlscale runs resume last, which starts over: no checkpoint is there"
    assert list(tmp_path.iterdir()) == []


def test_accumulated_gradients_are_not_lost(tmp_path: Path) -> None:
    error = stopped(tmp_path / "last.ckpt", signal.SIGTERM, at=2, accumulate_grad_batches=2)
    assert "optimizer step 2" in str(error)


@pytest.mark.parametrize(("interval", "at"), [(3, 2), (1.0, 5)])
def test_a_validation_that_is_due_is_not_lost(tmp_path: Path, interval: float, at: int) -> None:
    ran: list[int] = []

    class Validated(At):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            ran.append(trainer.global_step)

    run = trainer(
        callbacks=[
            At(lambda run, module, index: os.kill(os.getpid(), signal.SIGTERM) if index == at else None),
            Validated(lambda *_: None),
            signals.StopOnSignal(str(tmp_path / "last.ckpt")),
        ],
        enable_checkpointing=True,
        val_check_interval=interval,
        max_epochs=2,
    )
    apply_trainer_patches(run)
    with pytest.raises(MLScaleError, match=f"optimizer step {at + 1}"):
        fit(run, classifier(), batches(6))
    assert ran == [at + 1]


def test_the_time_of_an_attempt_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    stop = signals.StopOnSignal(str(tmp_path / "last.ckpt"), max_seconds=0.2)

    def pass_time(*_: object) -> None:
        clock[0] += 0.15

    run = trainer(callbacks=[At(pass_time), stop], enable_checkpointing=True)
    apply_trainer_patches(run)
    with pytest.raises(MLScaleError, match=r"stopped by trainer\.max_time after optimizer step 2, saved to") as caught:
        fit(run, classifier(), batches(6))
    assert caught.value.exit is Exit.SAVED
    assert (tmp_path / "last.ckpt").is_file()


@pytest.mark.parametrize(
    ("limit", "seconds"), [(None, None), ("01:02:03:04", 93784.0), ({"hours": 1, "minutes": 30}, 5400.0)]
)
def test_max_time(limit: Any, seconds: float | None) -> None:
    assert signals.parse_max_time(limit) == seconds


@pytest.mark.parametrize("limit", ["8", "11:55", {"fortnights": 1}, 5])
def test_max_time_that_is_none(limit: Any) -> None:
    with pytest.raises(MLScaleError, match=r"trainer\.max_time is"):
        signals.parse_max_time(limit)


@pytest.mark.slow
def test_a_second_interrupt_ends_the_process_at_once() -> None:
    """Unless it is an echo of the first."""
    code = """
import os, signal, time
from mlscale.train import graceful_stop as signals
for pause in (0.0, 0.6):
    if pid := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    with signals.handle_stop_signals():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(pause)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(0)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, timeout=120, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["0", str(-signal.SIGINT)]


def test_the_first_signal_is_the_one_that_counts() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.get_received_signal() == signal.SIGTERM


def test_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.handle_stop_signals():
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.handle_stop_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.get_received_signal() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_is_no_error() -> None:
    """What it has closed can't be written to; a run that prints its progress there would fail before it has saved."""
    terminal, ours = pty.openpty()
    kept = os.dup(1)
    os.dup2(ours, 1)
    os.close(ours)
    os.close(terminal)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            os.write(1, b"x")
        os.kill(os.getpid(), signal.SIGHUP)
        os.write(1, b"x")
        assert signals.get_received_signal() == signal.SIGHUP
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def test_what_arrives_before_the_training_is_for_it_and_what_arrives_after_it_stops_nothing() -> None:
    with signals.note_stop_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with signals.handle_stop_signals():
            assert signals.get_received_signal() == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGUSR1)
    with signals.handle_stop_signals():
        assert signals.get_received_signal() == 0


def test_what_is_blocked_arrives_once_it_is_handled() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        # To this thread: others of the tests do not block it.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        with signals.handle_stop_signals():
            assert signals.get_received_signal() == signal.SIGTERM
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_fit_that_has_ended_is_not_ended_by_the_failure_of_another_rank(tmp_path: Path) -> None:
    """It may wait for its uploads, long after the others, which have none, are gone."""
    later: list[int] = []

    class Late(At):
        def on_exception(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            later.append(signals.get_received_signal())

    def fail(*_: object) -> None:
        raise ValueError("trouble")

    run = trainer(callbacks=[signals.StopOnSignal(str(tmp_path / "last.ckpt")), Late(fail)], enable_checkpointing=True)
    apply_trainer_patches(run)
    run.callbacks.sort(key=lambda callback: isinstance(callback, Late))  # type: ignore[attr-defined]  # set by Lightning
    with signals.handle_stop_signals(has_run_failed=lambda: True), pytest.raises(ValueError, match="trouble"):
        fit(run, classifier(), batches(6))
    assert later == [signal.SIGTERM]
