"""Signals ahead of the training: which of them ask for another start, and that they end with exit code 75."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.early_stop import choose_early_signals, end_by_sigterm, handle_early_signals
from mlscale.launch.external.external_launcher import find_external_rank
from mlscale.launch.job_environment import JOB_RUN

STEP = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
AGENT = {"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (STEP, (signal.SIGTERM, signal.SIGUSR1)),
        ({}, (signal.SIGUSR1,)),
        (AGENT, ()),
        # The job script of launch=slurm knows what each signal means.
        ({**STEP, JOB_RUN: "/runs/one"}, ()),
    ],
)
def test_signals_that_ask_for_another_start(
    environment: dict[str, str], expected: tuple[signal.Signals, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert choose_early_signals(find_external_rank(environment), environment) == expected


def get_stopped_while_errors_are_handled() -> None:
    with handle_early_signals((signal.SIGUSR1,), is_reported=True):
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(5)
        except Exception:
            pytest.fail("an error of the data")


def test_code_that_handles_errors_does_not_swallow_the_stop() -> None:
    with pytest.raises(MLScaleError, match="stopped by SIGUSR1 before the first step") as raised:
        get_stopped_while_errors_are_handled()
    assert raised.value.exit == Exit.SAVED
    assert raised.value.is_reported
    # The launcher's second signal does not end the process by the signal, with another exit code.
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_handlers_of_others_stay() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, _: heard.append(signum))
    try:
        with handle_early_signals((signal.SIGUSR1,)):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_rank_that_ignores_the_signal_meanwhile_goes_on_to_ignore_it() -> None:
    with handle_early_signals((signal.SIGTERM,)):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_nothing_is_set_after_the_block() -> None:
    with handle_early_signals((signal.SIGUSR1, signal.SIGTERM)):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_command_that_is_ended_before_its_training_prints_a_line(signum: signal.Signals, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mlscale", "+recipe=resnet", "debug=fast"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as command:
        caught = 0
        while not caught >> (signum - 1) & 1:  # until it handles the signal
            assert command.poll() is None
            status = Path(f"/proc/{command.pid}/status").read_text()
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        command.send_signal(signum)
        _, printed = command.communicate()
    # 143 in a shell, or 'start me again'.
    assert command.returncode == (75 if signum == signal.SIGUSR1 else -signal.SIGTERM)
    assert f"stopped by {signum.name}: no training was running, so nothing was saved" in printed
    assert "fix:   start the command again" in printed
    assert list(tmp_path.iterdir()) == []


def test_sigterm_asks_for_another_start_under_another_launcher_in_spite_of_the_line() -> None:
    before = signal.signal(signal.SIGTERM, end_by_sigterm)
    try:
        with handle_early_signals((signal.SIGTERM,)):
            assert signal.getsignal(signal.SIGTERM) is not end_by_sigterm
        assert signal.getsignal(signal.SIGTERM) is end_by_sigterm
    finally:
        signal.signal(signal.SIGTERM, before)
