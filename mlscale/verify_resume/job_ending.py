"""End a job as its platform does: a signal, the grace period, SIGKILL; and measure the time that it needed."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlscale.atomic_files import remove_tree
from mlscale.verify_resume.platform_rules import PlatformRules
from mlscale.verify_resume.played_node import PlayedNode

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
