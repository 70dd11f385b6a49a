"""Reads the header `Server-Timing` (W3C): the time that an answer took in the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_ENTRY = re.compile(r"(?:^|,)\s*([^\s;,=]+)((?:\s*;[^,]*)?)")
_DURATION = re.compile(r';\s*dur\s*=\s*"?(\d+(?:\.\d+)?)', re.IGNORECASE)


class ServerTime(NamedTuple):
    """The time of an answer in the server.

    Attributes:
        total_ms: from the request to the answer.
        service_ms: of that, without its time in the queue; None where the server does not send that.
        compute_ms: of that, the time of its batch; None where the server does not send it.
    """

    total_ms: float
    service_ms: float | None = None
    compute_ms: float | None = None


def read_server_time(headers: Mapping[str, str]) -> ServerTime | None:
    """Return the entry `total`, `total` without `queue`, and `compute`; where `total` is absent, the longest entry.

    Returns:
        None where the server does not send the header, or no duration in it.
    """
    header = headers.get("Server-Timing") or headers.get("server-timing")
    if not header:
        return None
    durations = {
        name.lower(): float(match[1])
        for name, parameters in _ENTRY.findall(header)
        if (match := _DURATION.search(parameters))
    }
    if not durations:
        return None
    total, queue = durations.get("total"), durations.get("queue")
    if total is None:
        # Names of entries are free: without `total`, the longest is the best estimate, since entries may overlap.
        return ServerTime(max(durations.values()))
    return ServerTime(total, None if queue is None else max(0.0, total - queue), durations.get("compute"))
