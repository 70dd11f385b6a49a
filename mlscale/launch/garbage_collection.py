"""When Python looks for garbage: not while modules are imported and configs composed, of which nearly all stays.

Importing torch and Lightning makes objects by the hundred thousand; going over them again and again takes a fifth of
the time, and once more that much at the end of the process.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_ours = False


def claim() -> None:
    """Say that this process is mlscale's own: a command line, or the fork server. Anybody else's is left alone."""
    global _ours
    _ours = True


def claimed() -> bool:
    """Whether it is."""
    return _ours


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """No collection during the block; what there is at its end is not looked at again, and shared by forked ranks.

    Cyclic garbage made in the block is never freed: it is for what happens once. Without `claim` it does nothing.
    """
    before = gc.isenabled()
    if _ours:
        gc.disable()
    try:
        yield
    finally:
        if _ours:
            gc.freeze()
        if before:
            gc.enable()
