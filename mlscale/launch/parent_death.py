"""Ends the process that imports this with the one that has started it: the fork server, which imports it first, would
import torch to the end before it notices.
"""

import contextlib
import ctypes
import signal

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h

with contextlib.suppress(AttributeError, OSError):  # not Linux
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
