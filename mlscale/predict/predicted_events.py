"""Predictions as events, for monitoring: written once, however often a part is done again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mlscale.events.input_summary import Batch, columns
from mlscale.events.segments import Appender
from mlscale.events.stream_schema import stamped
from mlscale.predict.score_parts import Loaded
from mlscale.runs.identity import folder_name


class PartEvents:
    """Events of the parts of a set of predictions; their ids are the keys of the inputs, by which labels join later.

    A part's events are one segment whose name follows from the predictions and the part, and whose time is when the
    predictions were begun: a part that is done again replaces it.

    Args:
        root: the folder of events.
        model: its name.
        version: what events call it.
        created: when the predictions were begun, ISO 8601.
        token: tells these predictions from others; hexadecimal.
    """

    def __init__(self, root: Path, model: str, version: str, created: str, token: str) -> None:
        self._appender = Appender(root / folder_name(model) / "events", "event", writer=f"0.{token}")
        self._model, self._version = model, version
        self._time_us = int(datetime.fromisoformat(created).timestamp() * 1e6)
        self._tables: list[Any] = []

    def add(self, loaded: Loaded, said: dict[str, Any], seconds: float) -> None:
        """A batch, with what was said of it, and how long that took."""
        good = [key for key, error in zip(loaded.keys, loaded.errors, strict=True) if not error]
        bad = [key for key, error in zip(loaded.keys, loaded.errors, strict=True) if error]
        latency = np.full(len(good), 1000 * seconds / max(1, len(good)), np.float32)
        if good:
            labels, probabilities = said["predicted"], said["probabilities"]
            self._put(Batch(good, self._time_us, self._version, loaded.raw, labels, probabilities, latency, "ok"))
        if bad:
            nothing = np.zeros(len(bad), np.float32)
            self._put(Batch(bad, self._time_us, self._version, None, None, None, nothing, "rejected"))

    def write(self, part: int) -> None:
        """The events of a part; on the disk when this returns.

        Raises:
            MLScaleError: the folder can't be written to (exit code 5).
        """
        import pyarrow as pa

        self._appender.put(pa.concat_tables(self._tables), part)
        self._tables = []

    def _put(self, batch: Batch) -> None:
        import pyarrow as pa

        self._tables.append(pa.table(columns(self._model, [batch], 0.0), schema=stamped("event")))
