"""Describe how a platform ends and restarts jobs: its signal, its grace period, what survives, what it passes on."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlscale.atomic_files import remove_tree
from mlscale.errors import Exit, MLScaleError
from mlscale.verify_resume.played_node import PlayedNode

SIGNALS = ("TERM", "USR1", "none")
# What an image, a login shell or a prolog sets on every node, so that a restarted process has it, too.
_NODE_VARIABLES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "VIRTUAL_ENV", "PYTHONPATH",
    "PYTHONHASHSEED", "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR",
})  # fmt: skip
_NODE_PREFIXES = ("LC_", "CONDA_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "TORCH")


@dataclass(frozen=True)
class PlatformRules:
    """The rules of one platform, as the settings of `launch` describe it.

    Attributes:
        name: kubernetes, skypilot, slurm or torchrun.
        signal_name: of the signal that announces the end: TERM, USR1, or none where the node is lost without notice.
        grace_s: seconds between the signal and SIGKILL.
        grace_key: the setting of the grace period, with a value that can be typed, such as `launch.grace_s={}`.
        passes_environment: True if a restarted process has the environment of the submission.
        passed: names of variables that the platform sets from its own settings or secrets.
        runs_dir: the folder of the runs on a node.
        survives: True if that folder is there after the node is lost.
        lost_fix: what to type where it does not survive.
        variable_fix: what to type where the variable `{}` is missing after a restart.
        restarts_by_code: True if only exit code 75 makes the platform start the job again.
    """

    name: str
    signal_name: str
    grace_s: float
    grace_key: str
    runs_dir: str
    survives: bool
    lost_fix: str
    variable_fix: str
    passes_environment: bool = False
    passed: tuple[str, ...] = ()
    restarts_by_code: bool = True

    @property
    def signal_number(self) -> signal.Signals | None:
        """The signal; None where the platform sends none."""
        return None if self.signal_name == "none" else signal.Signals[f"SIG{self.signal_name}"]

    def accepts_exit(self, code: int | None) -> bool:
        """Return True if the platform starts a job again that ended with this exit code; None: it was killed."""
        return code is None or not self.restarts_by_code or code == Exit.SAVED

    def select_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return what a restarted process has of an environment."""
        if self.passes_environment:
            return dict(environment)
        return {
            name: value
            for name, value in environment.items()
            if name in _NODE_VARIABLES or name in self.passed or name.startswith(_NODE_PREFIXES)
        }


def check_signal(name: str) -> str:
    """Return the name of a signal as `SIGNALS` has it.

    Raises:
        MLScaleError: it is another one.
    """
    if name not in SIGNALS:
        raise MLScaleError(
            f"launch.signal is {name!r}",
            where="launch.signal",
            why=f"it is one of {', '.join(SIGNALS)}",
            fix="launch.signal=TERM",
        )
    return name


def choose_restart_size(devices: int, batch_size: int) -> int:
    """Return a number of processes other than `devices` that divides the global batch: half of them, else more.

    `devices` itself where no other number up to twice as many does.
    """
    # Few changes of size are as common as half of the nodes; a single process can only become more.
    candidates = (*range(devices // 2, devices), *range(2 * devices, devices, -1))
    return next((count for count in candidates if count > 0 and batch_size % count == 0), devices)


_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class JobEnding:
    """The end of a job.

    Attributes:
        needed_s: seconds from the signal to its end; None where the platform sends no signal.
        code: its exit code; None where it was killed.
        is_complete: False where it had not ended when the drill stopped waiting: it needs more than `needed_s`.
    """

    needed_s: float | None
    code: int | None
    is_complete: bool = True


def end_job(
    node: PlayedNode, rules: PlatformRules, runs: Path, limit_s: float, report_sent: Callable[[], object]
) -> JobEnding:
    """End the job on a node by the rules of its platform; `runs` is left as the SIGKILL of the platform would leave it.

    A job that is still at work when its grace period ends is not killed at once. It is stopped while `runs` is copied,
    continues until it ends, so that the time it needs is known, and then the copy takes the place of `runs`.

    Args:
        runs: the folder of the runs.
        limit_s: seconds to wait for a job that needs longer than its grace period.
        report_sent: called when the signal has been sent.
    """
    if rules.signal_number is None:
        node.kill_all()
        return JobEnding(None, None)
    node.send_signal(rules.signal_number)
    sent = time.monotonic()
    report_sent()
    if (code := _wait_for_end(node, sent + rules.grace_s)) is not None:
        needed = time.monotonic() - sent
        node.kill_all()
        return JobEnding(needed, code)
    # From here on the platform's node has no process any more; what these do is measured, and then undone.
    aside = runs.with_name(f"{runs.name}.at-kill")
    paused = _copy_while_stopped(node, runs, aside)
    code = _wait_for_end(node, sent + paused + max(limit_s, rules.grace_s))
    needed = time.monotonic() - sent - paused
    node.kill_all()
    if aside.exists():
        remove_tree(runs)
        aside.rename(runs)
    return JobEnding(needed, None, is_complete=code is not None)


def _wait_for_end(node: PlayedNode, deadline: float) -> int | None:
    """Return the exit code; None where the job has not ended at the deadline."""
    while True:
        if (code := node.get_exit_code()) is not None:
            return code
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_SECONDS)


def _copy_while_stopped(node: PlayedNode, source: Path, target: Path) -> float:
    """Copy a folder while all processes of the node are stopped; return the seconds that they were."""
    began = time.monotonic()
    # A copy of files that change would be a state that no SIGKILL leaves behind.
    node.signal_all(signal.SIGSTOP)
    try:
        if source.exists():
            shutil.copytree(source, target, symlinks=True)
    finally:
        node.signal_all(signal.SIGCONT)
    return time.monotonic() - began
