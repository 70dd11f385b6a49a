"""Rules of platforms: the environment that a restarted job has, exit codes, and another number of processes."""

import signal

import pytest

from mlscale.errors import MLScaleError
from mlscale.verify_resume.platform_rules import check_signal, choose_restart_size
from tests.unit.verify_resume.rules import make_rules


def test_a_restarted_job_has_the_nodes_variables_and_those_that_are_passed() -> None:
    environment = {"PATH": "/bin", "LC_ALL": "C", "CUDA_HOME": "/cuda", "DB_PASSWORD": "x", "TOKEN": "y", "PWD": "/"}
    assert make_rules(passed=("TOKEN",)).select_environment(environment) == {
        "PATH": "/bin", "LC_ALL": "C", "CUDA_HOME": "/cuda", "TOKEN": "y",
    }  # fmt: skip
    assert make_rules(passes_environment=True).select_environment(environment) == environment


def test_only_exit_code_75_and_a_kill_are_restarted() -> None:
    rules = make_rules()
    assert [rules.accepts_exit(code) for code in (75, None, 143, 1, 0)] == [True, True, False, False, False]
    assert make_rules(restarts_by_code=False).accepts_exit(1)


def test_signals_are_those_that_platforms_send() -> None:
    assert make_rules(signal_name="USR1").signal_number == signal.SIGUSR1
    assert make_rules(signal_name="none").signal_number is None
    with pytest.raises(MLScaleError, match="'KILL'") as raised:
        check_signal("KILL")
    assert raised.value.fix == "launch.signal=TERM"


@pytest.mark.parametrize(
    ("devices", "batch", "other"), [(1, 64, 2), (2, 64, 1), (4, 64, 2), (8, 12, 4), (3, 9, 1), (1, 7, 1), (5, 35, 7)]
)
def test_the_other_size_divides_the_global_batch(devices: int, batch: int, other: int) -> None:
    assert choose_restart_size(devices, batch) == other
