"""A process that reads batches, notes each with the loader's state, and may be killed at any time."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

Line = tuple[str, dict[str, Any]]
"""The digest of a batch, and the loader's state after it."""


def write_batches(backend: str, folder: Path, policy: dict[str, Any], log: Path, count: int) -> None:
    """Append a line for each batch to a log, from the state of its last whole line on.

    Args:
        backend: the function of `backends` that builds the data.
        folder: of its files.
        policy: see there.
        log: one JSON value a line.
        count: batches, over all processes that write to this log.
    """
    from tests.unit.data.backends import BACKENDS

    os.environ["MLSCALE_CACHE"] = str(folder / "cache")
    data = {build.__name__: build for build in BACKENDS}[backend](folder, **policy)
    data.setup("fit")
    if lines := read_log(log):
        data.load_state_dict(lines[-1][1])
    done, loader = len(lines), data.train_dataloader()
    with log.open("a") as file:
        # What a killed process left of its last line is not a line.
        file.truncate(sum(len(json.dumps(line)) + 1 for line in lines))
        while done < count:
            for batch in loader:
                file.write(json.dumps((digest_batch(batch), data.state_dict())) + "\n")
                file.flush()
                done += 1
                if done == count:
                    break


def read_log(log: Path) -> list[Line]:
    """Return the whole lines of a log."""
    text = log.read_text() if log.exists() else ""
    return [tuple(json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]


def digest_batch(batch: dict[str, Any]) -> str:
    """Return a digest of all values of a batch."""
    digest = hashlib.sha256()
    for name, value in sorted(batch.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()
