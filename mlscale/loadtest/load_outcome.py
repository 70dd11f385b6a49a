"""The outcome of a load test, as the Locust process writes it, and the objective that it is compared with.

Reads the header `Server-Timing` (W3C): the time that an answer took in the server.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mlscale.loadtest.client_load import ClientLoad
from mlscale.loadtest.latency_histogram import LatencyHistogram

_MOST_KINDS = 20


@dataclass
class LoadOutcome:
    """The measured requests: those that began after the warm-up and before the end.

    Attributes:
        seconds: the measured time.
        requests: the number of requests, failed ones included.
        failures: failed requests by reason: at most 20 reasons, and 'others'.
        samples: samples with a valid answer.
        labelled, correct: of these, the ones with a known label, and the ones whose predicted label is that.
        versions: requests by the version that answered.
        latencies: of requests with a valid answer.
        server: of these, the time in the server, where it sends that (`Server-Timing`).
        service, compute: of that, the time without its queue, and of the batch, where it sends these, too.
        network: of the same requests, the rest: network, client, and the wait until the server read the request.
        client: the load of the client.
    """

    seconds: float = 0.0
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    labelled: int = 0
    correct: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    server: LatencyHistogram = field(default_factory=LatencyHistogram)
    service: LatencyHistogram = field(default_factory=LatencyHistogram)
    compute: LatencyHistogram = field(default_factory=LatencyHistogram)
    network: LatencyHistogram = field(default_factory=LatencyHistogram)
    client: ClientLoad = field(default_factory=ClientLoad)

    def record_failure(self, why: str) -> None:
        """Count a request without a valid answer."""
        self.requests += 1
        # A server can put anything into an error: the reasons must not grow without bound.
        self.failures[why if why in self.failures or len(self.failures) < _MOST_KINDS else "others"] += 1

    def record_answer(
        self,
        ms: float,
        version: str,
        count: int,
        predicted: tuple[str, ...] | None,
        right: tuple[str, ...] | None,
        server: ServerTime | None = None,
    ) -> None:
        """Count a request with a valid answer.

        Args:
            ms: its latency.
            version: the version that computed it.
            count: the number of its samples.
            predicted, right: predicted and correct class names of the samples; None where they are not known.
            server: the part of `ms` in the server; None where it does not send it.
        """
        self.requests += 1
        self.versions[version] += 1
        self.samples += count
        self.latencies.add_latency(ms)
        if server is not None:
            self.server.add_latency(server.total_ms)
            # Two clocks on two machines, never compared directly: only durations are, whose difference may be slightly
            # negative.
            self.network.add_latency(max(0.0, ms - server.total_ms))
            if server.service_ms is not None:
                self.service.add_latency(server.service_ms)
            if server.compute_ms is not None:
                self.compute.add_latency(server.compute_ms)
        # Answers without class names are valid, but would lower the accuracy as if they were wrong.
        if predicted is not None and right is not None:
            self.labelled += count
            self.correct += sum(a == b for a, b in zip(predicted, right, strict=True))

    @property
    def failed_requests(self) -> int:
        """The number of failed requests."""
        return sum(self.failures.values())

    @property
    def requests_per_s(self) -> float:
        """The number of requests with a valid answer per second."""
        return (self.requests - self.failed_requests) / self.seconds if self.seconds else 0.0

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LoadOutcome:
        """Return the outcome that `json.dumps(outcome, default=vars)` has written."""
        client = {**document["client"], **_read_latencies(document["client"], ("lag", "empty"))}
        counters = {name: Counter(document[name]) for name in ("failures", "versions")}
        latencies = _read_latencies(document, ("latencies", "server", "service", "compute", "network"))
        return cls(**{**document, **counters, **latencies, "client": ClientLoad(**client)})


def _read_latencies(document: Mapping[str, Any], names: Iterable[str]) -> dict[str, LatencyHistogram]:
    return {name: LatencyHistogram(**document[name]) for name in names}


@dataclass(frozen=True)
class Objective:
    """A service-level objective; a term that is None is not checked.

    Attributes:
        p50_ms, p95_ms, p99_ms: the highest latencies of half, 95 % and 99 % of the answers.
        max_failures: the most requests that may fail.
        min_requests_per_s: the least valid answers per second.
    """

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_failures: int | None = 0
    min_requests_per_s: float | None = None


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
