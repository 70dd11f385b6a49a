"""What came of a load test, as the process that asked wrote it down, and what of an objective it misses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.loadtest.latencies import Latencies

_MOST_KINDS = 20


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
    """

    seconds: float = 0.0
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    labelled: int = 0
    correct: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)

    def failed(self, why: str) -> None:
        """Count a request that was not answered, or wrongly."""
        self.requests += 1
        self.failures[why if why in self.failures or len(self.failures) < _MOST_KINDS else "others"] += 1

    def answered(
        self, ms: float, version: str, count: int, said: tuple[str, ...] | None, right: tuple[str, ...] | None
    ) -> None:
        """Count a request that was answered.

        Args:
            ms: how long it took.
            version: that computed it.
            count: samples in it.
            said, right: names of their classes; None where they are not known.
        """
        self.requests += 1
        self.versions[version] += 1
        self.samples += count
        self.latencies.add(ms)
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
        return {**plain, "latencies": self.latencies.as_dict()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Outcome:
        """What `as_dict` gave."""
        return cls(
            **{
                **document,
                "failures": Counter(document["failures"]),
                "versions": Counter(document["versions"]),
                "latencies": Latencies.from_dict(document["latencies"]),
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

    def missed(self, outcome: Outcome) -> list[str]:
        """A phrase for each term that does not hold, with its figure. No request at all holds nothing."""
        if not outcome.requests:
            return ["no request came to an end"]
        found = []
        for share, name in ((0.5, "p50_ms"), (0.95, "p95_ms"), (0.99, "p99_ms")):
            most, value = getattr(self, name), outcome.latencies.quantile(share)
            if most is not None and not value <= most:
                found.append(f"p{share * 100:g} is {value:.3g} ms, more than slo.{name}={most:g}")
        failed, rate = outcome.failed_requests, outcome.requests_per_s
        if self.max_failures is not None and failed > self.max_failures:
            kinds = ", ".join(f"{count:,} × {why}" for why, count in outcome.failures.most_common(3))
            found.append(f"{failed:,} of {outcome.requests:,} requests failed ({kinds})")
        if self.min_requests_per_s is not None and not rate >= self.min_requests_per_s:
            found.append(f"{rate:,.1f} requests/s, fewer than slo.min_requests_per_s={self.min_requests_per_s:g}")
        return found
