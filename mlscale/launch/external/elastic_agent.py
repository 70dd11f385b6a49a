"""Start the ranks of one node as torchrun does, and end with the exit code of the ranks: torchrun ends with 1 for all.

    python -m mlscale.launch.external.elastic_agent --nproc-per-node=4 -m mlscale +recipe=resnet

Takes torchrun's arguments and its variables, PET_*. Platforms that restart a job by its exit code, 75, see it this way;
and ranks have the whole grace period of the platform to save, where torchrun kills them after 30 s.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from mlscale.errors import Exit
from mlscale.launch.threads import wait_passively

_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
_SHUTDOWN_SECONDS = 86_400  # the platform's SIGKILL ends ranks that take too long
# Of ranks that the signal has ended before they handled it: nothing was to be saved, and another start is to come.
_EARLY = tuple(-number for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1))
_ranks: dict[str, subprocess.Popen[bytes]] = {}


class _Process(subprocess.Popen[bytes]):
    """A process of this program. Those of ranks are kept: after a signal torch's agent reports no exit codes."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str] | None = None, **options: object) -> None:
        super().__init__(args, env=env, **options)  # type: ignore[call-overload]  # as they were given
        if env and "LOCAL_RANK" in env:
            _ranks[env["LOCAL_RANK"]] = self


def main(argv: Sequence[str] | None = None) -> int:
    """Run torchrun's agent; return the exit code of the ranks, as `choose_exit_code` has it."""
    wait_passively()
    subprocess.Popen = _Process  # type: ignore[assignment,misc]  # before torch imports it
    # Until torch's agent handles them: nothing has begun, and another start is to come.
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, lambda *_: os._exit(int(Exit.SAVED)))
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    words = list(sys.argv[1:] if argv is None else argv)
    words = [f"--signals-to-handle={_SIGNALS}", f"--shutdown-timeout={_SHUTDOWN_SECONDS}", *words]
    args = torchrun.parse_args(words)  # type: ignore[no-untyped-call]
    if not os.environ.get("MLSCALE_TRACEBACK"):
        # The ranks have printed their error: the agent's log would repeat it as tracebacks.
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        torchrun.run(args)  # type: ignore[no-untyped-call]
    except SignalException as stop:
        codes = [process.returncode for process in _ranks.values()]
        return int(Exit.INTERRUPTED) if stop.sigval == signal.SIGINT else choose_exit_code(codes)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        return choose_exit_code([error.get_first_failure()[1].exitcode, *codes])
    return int(Exit.DONE)


def choose_exit_code(codes: Sequence[int]) -> int:
    """Return the exit code of a node from those of its ranks, the first failure first; a signal is 128 plus its number.

    75 where they were stopped and have saved, or had not begun; 143 where they could not save. An error of one of them
    is not repaired by another start.
    """
    failed = [code for code in codes if code not in (Exit.DONE, Exit.SAVED, Exit.TERMINATED, *_EARLY)]
    if not failed:
        return int(Exit.TERMINATED if Exit.TERMINATED in codes and Exit.SAVED not in codes else Exit.SAVED)
    return 128 - failed[0] if failed[0] < 0 else failed[0]


if __name__ == "__main__":
    sys.exit(main())
