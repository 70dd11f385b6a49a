"""Describe how a platform ends and restarts jobs: its signal, its grace period, what survives, what it passes on."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass

from mlscale.errors import Exit, MLScaleError

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
