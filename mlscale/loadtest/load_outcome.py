"""What came of a load test, as the process that asked wrote it down, and what it is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.loadtest.client_load import ClientLoad
from mlscale.loadtest.latency_histogram import Latencies
from mlscale.loadtest.server_timing import ServerTime

_MOST_KINDS = 20
_LATENCIES = ("latencies", "server", "service", "compute", "network")
_NESTED = (*_LATENCIES, "client")


@dataclass
class Outcome:
    """Requests that began after the warm-up and before the end.

    Attributes:
        seconds: how long that was.
        requests: how many there were, answered or not.
        failures: of them, by what was wrong: at most 20 kinds, and 'others'.
        samples: that were answered rightly in form.
        labelled, correct: of these, how many had a label to compare with, and were right.
        versions: requests by the version that answered.
        latencies: of requests that were answered rightly in form.
        server: of them, what the server itself took, where it sends that (`Server-Timing`).
        service, compute: of that, what it took without its queue, and for the batch, where it sends that, too.
        network: of the same requests, all the rest: network, client, and what waited to be read by the server.
        client: what the client had to do.
    """

    seconds: float = 0.0
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    labelled: int = 0
    correct: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    server: Latencies = field(default_factory=Latencies)
    service: Latencies = field(default_factory=Latencies)
    compute: Latencies = field(default_factory=Latencies)
    network: Latencies = field(default_factory=Latencies)
    client: ClientLoad = field(default_factory=ClientLoad)

    def failed(self, why: str) -> None:
        """Count a request that was not answered, or wrongly."""
        self.requests += 1
        self.failures[why if why in self.failures or len(self.failures) < _MOST_KINDS else "others"] += 1

    def answered(
        self,
        ms: float,
        version: str,
        count: int,
        said: tuple[str, ...] | None,
        right: tuple[str, ...] | None,
        server: ServerTime | None = None,
    ) -> None:
        """Count a request that was answered.

        Args:
            ms: how long it took.
            version: that computed it.
            count: samples in it.
            said, right: names of their classes; None where they are not known.
            server: what the server itself took of `ms`; None where it does not send it.
        """
        self.requests += 1
        self.versions[version] += 1
        self.samples += count
        self.latencies.add(ms)
        if server is not None:
            self.server.add(server.total_ms)
            self.network.add(max(0.0, ms - server.total_ms))
            if server.service_ms is not None:
                self.service.add(server.service_ms)
            if server.compute_ms is not None:
                self.compute.add(server.compute_ms)
        if said is not None and right is not None:
            self.labelled += count
            self.correct += sum(a == b for a, b in zip(said, right, strict=True))

    @property
    def failed_requests(self) -> int:
        """How many requests failed."""
        return sum(self.failures.values())

    @property
    def requests_per_s(self) -> float:
        """Requests answered rightly in form, a second."""
        return (self.requests - self.failed_requests) / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        nested = {name: getattr(self, name).as_dict() for name in _NESTED}
        return {**plain, **nested}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Outcome:
        """What `as_dict` gave."""
        return cls(
            **{
                **document,
                "failures": Counter(document["failures"]),
                "versions": Counter(document["versions"]),
                **{name: Latencies.from_dict(document[name]) for name in _LATENCIES},
                "client": ClientLoad.from_dict(document["client"]),
            }
        )


@dataclass(frozen=True)
class Objective:
    """A service-level objective; a term that is None is not asked for.

    Attributes:
        p50_ms, p95_ms, p99_ms: latencies that half, 95 % and 99 % of the answers may take at most.
        max_failures: requests that may fail.
        min_requests_per_s: answers there must be a second.
    """

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_failures: int | None = 0
    min_requests_per_s: float | None = None

    def __post_init__(self) -> None:
        """Raises:
        MLScaleError: a term is below 0.
        """
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not value >= 0:
                raise MLScaleError(f"slo.{each.name} is {value}", where=f"slo.{each.name}", fix=f"slo.{each.name}=null")
