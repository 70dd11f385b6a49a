"""Run torch on one thread, as each of several workers of a server does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_torch_threads() -> Iterator[None]:
    """Make torch compute on one thread in this block, as each of several workers of a server does."""
    import torch  # here, as importing it takes seconds

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        # The number of threads is a setting of the whole process.
        torch.set_num_threads(before)
