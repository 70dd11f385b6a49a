"""Shards behind servers on loopback, and transfers that lose no time between attempts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mlscale.data.remote import remote_shard
from mlscale.data.remote.transfers import RetryLimits
from tests.unit.data.conftest import write_shards
from tests.unit.data.remote.faulty_server import Faults, serve_folder

QUICK = RetryLimits(attempts=6, first_wait=0.001, longest_wait=0.01, stall_seconds=0.5)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> RetryLimits:
    """Attempts without the waits that a real network needs."""
    monkeypatch.setattr(remote_shard, "RetryLimits", lambda: QUICK)
    # A proxy of the machine would be contacted in place of loopback.
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return QUICK


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set: five shards of 20 images each, and two of validation."""
    write_shards(tmp_path / "set" / "train", 100, shards=5)
    write_shards(tmp_path / "set" / "val", 9)
    return tmp_path / "set"


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, Faults]]]:
    """Serve folders until the test ends."""
    with ExitStack() as stack:

        def start(root: Path, **faults: Any) -> tuple[str, Faults]:
            return stack.enter_context(serve_folder(root, Faults(**faults)))

        yield start
