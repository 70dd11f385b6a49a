"""The metrics of `GET /metrics`, in the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

KIND = CONTENT_TYPE_LATEST.encode()
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Histogram:
    """Counts of values by their size.

    Args:
        bounds: the largest value of each bucket, ascending; larger values are counted in one more bucket.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.total = bounds, 0.0
        self.counts = [0] * (len(bounds) + 1)

    def add_value(self, value: float) -> None:
        """Count a value."""
        # A bound belongs to its bucket, `le`: hence bisect_left.
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """The number of values so far."""
        return sum(self.counts)

    def compute_quantile(self, share: float) -> float:
        """Return the smallest bound that at least that share of the values does not exceed; infinite above the last."""
        wanted, seen = share * self.count, 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= wanted:
                return bound
        raise AssertionError("unreachable")

    def build_family(self, name: str, help_: str) -> Metric:
        """Return the histogram of Prometheus, whose buckets are cumulative."""
        bounds = (*map(str, self.bounds), "+Inf")
        buckets = list(zip(bounds, accumulate(self.counts), strict=True))
        return HistogramMetricFamily(name, help_, buckets=buckets, sum_value=self.total)


class ServerMetrics:
    """The counters of a server; to be changed in the thread of the event loop only.

    Attributes:
        requests: responses by (route, status).
        predictions: samples that have a prediction, by version.
        unpredicted: samples without one by (version, `failed` or `rejected`), as events count them: the model failed or
            gave numbers that are not finite, or the request was refused, which counts once.
        latency: seconds from the last byte of an inference request to its response, for status 200.
        batches: rows of each batch.
        compute_s: seconds in the model.
        swaps: swaps of the version, by `ok` or `failed`.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.predictions: Counter[str] = Counter()
        self.unpredicted: Counter[tuple[str, str]] = Counter()
        # Zeros from the start: `rate()` needs a series before its first event.
        self.swaps: Counter[str] = Counter(ok=0, failed=0)
        self.latency, self.batches = Histogram(_SECONDS), Histogram(_ROWS)
        self.compute_s = 0.0

    @property
    def answered(self) -> int:
        """The number of requests so far."""
        return sum(self.requests.values())

    def count_outcome(self, outcome: str) -> int:
        """Return the number of samples without a prediction of one outcome, `failed` or `rejected`."""
        return sum(count for (_, other), count in self.unpredicted.items() if other == outcome)

    @property
    def failed_requests(self) -> int:
        """The number of requests that were answered with a status of 500 or above."""
        return sum(count for (_, status), count in self.requests.items() if status >= 500)

    def render_metrics(
        self, *, model: str, version: str, runtime: str, others: Iterable[tuple[str, str, float]]
    ) -> bytes:
        """Return all metrics as the body of the response.

        Args:
            model, version: the ones that serve now.
            runtime: what computes the model.
            others: more metrics, each its name, help and value.
        """
        predictions = {(name,): count for name, count in self.predictions.items()}
        swaps = {(result,): count for result, count in self.swaps.items()}
        unpredicted = "Samples without a prediction: failed in the model, or rejected."
        rows = "Rows computed at once: a sample each, of a document a window."
        computed = ("mlscale_compute_seconds_total", "Time in the model.", self.compute_s)
        families = [
            _build("mlscale_model_info", "The version that answers.", {(model, version): 1}, "model", "version"),
            _build("mlscale_runtime_info", "What computes the model.", {(runtime,): 1}, "runtime"),
            _build("mlscale_requests_total", "Answers by route and status.", self.requests, "route", "code"),
            _build("mlscale_predictions_total", "Samples with a prediction, by version.", predictions, "version"),
            _build("mlscale_unpredicted_total", unpredicted, self.unpredicted, "version", "outcome"),
            _build("mlscale_swaps_total", "Changes of the version.", swaps, "result"),
            self.latency.build_family(
                "mlscale_request_seconds", "From the last byte of a request for inference to its answer."
            ),
            self.batches.build_family("mlscale_batch_rows", rows),
            *(_build(name, help_, {(): value}) for name, help_, value in (computed, *others)),
        ]
        return generate_latest(_Families(families))


@dataclass
class _Families(Collector):
    families: Sequence[Metric]

    def collect(self) -> Sequence[Metric]:
        return self.families


def _build(name: str, help_: str, series: Mapping[Any, float], *labels: str) -> Metric:
    family = (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(name, help_, labels=labels)
    # Sorted, so that two scrapes list the same series in the same order.
    for values, number in sorted(series.items()):
        family.add_metric([str(value) for value in values], number)
    return family
