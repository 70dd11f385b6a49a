"""Start the ranks of one node as torchrun does, and end with the exit code of the ranks: torchrun ends with 1 for all.

    python -m mlscale.launch.external.elastic_agent --nproc-per-node=4 -m mlscale +recipe=resnet

Takes torchrun's arguments and its variables, PET_*. Platforms that restart a job by its exit code, 75, see it this way;
and ranks have the whole grace period of the platform to save, where torchrun kills them after 30 s.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

from mlscale.errors import Exit
from mlscale.launch.threads import wait_passively

_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
_SHUTDOWN_SECONDS = 86_400  # the platform's SIGKILL ends ranks that take too long
_RESTARTED = (int(Exit.SAVED), int(Exit.TERMINATED))


def main(argv: Sequence[str] | None = None) -> int:
    """Run torchrun's agent; return the exit code: 75 after a signal of the platform, else that of the first rank."""
    wait_passively()
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
        return int(Exit.INTERRUPTED if stop.sigval == signal.SIGINT else Exit.SAVED)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        return choose_exit_code([error.get_first_failure()[1].exitcode, *codes])
    return int(Exit.DONE)


def choose_exit_code(codes: Sequence[int]) -> int:
    """Return the exit code of a node from those of its ranks, the first failure first; a signal is 128 plus its number.

    75 where all of them were stopped and have saved: an error of one of them is not repaired by another start.
    """
    failed = [code for code in codes if code not in _RESTARTED]
    if not failed:
        return int(Exit.SAVED)
    return 128 - failed[0] if failed[0] < 0 else failed[0]


if __name__ == "__main__":
    sys.exit(main())
