"""The metrics of `GET /metrics`, in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

KIND = b"text/plain; version=0.0.4; charset=utf-8"
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

    def format_histogram(self, name: str) -> Iterable[str]:
        """Yield the lines of a Prometheus histogram, whose buckets are cumulative."""
        seen = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            seen += count
            yield f'{name}_bucket{{le="{bound}"}} {seen}'
        yield f"{name}_sum {self.total:.9g}"
        yield f"{name}_count {seen}"


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
        self, *, model: str, version: str, runtime: str, others: Iterable[tuple[str, str, str, float]]
    ) -> bytes:
        """Return all metrics as the body of the response.

        Args:
            model, version: the ones that serve now.
            runtime: what computes the model.
            others: more metrics, each its name, type, help and value.
        """
        lines = ["# HELP mlscale_model_info The version that answers.", "# TYPE mlscale_model_info gauge"]
        lines.append(f'mlscale_model_info{{model="{_escape_label(model)}",version="{_escape_label(version)}"}} 1')
        lines += ["# HELP mlscale_runtime_info What computes the model.", "# TYPE mlscale_runtime_info gauge"]
        lines.append(f'mlscale_runtime_info{{runtime="{_escape_label(runtime)}"}} 1')
        lines += ["# HELP mlscale_requests_total Answers by route and status.", "# TYPE mlscale_requests_total counter"]
        # Sorted, so that two scrapes list the same series in the same order.
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'mlscale_requests_total{{route="{route}",code="{status}"}} {count}')
        lines += [
            "# HELP mlscale_predictions_total Samples with a prediction, by version.",
            "# TYPE mlscale_predictions_total counter",
        ]
        for name, count in sorted(self.predictions.items()):
            lines.append(f'mlscale_predictions_total{{version="{_escape_label(name)}"}} {count}')
        lines += [
            "# HELP mlscale_unpredicted_total Samples without a prediction: failed in the model, or rejected.",
            "# TYPE mlscale_unpredicted_total counter",
        ]
        for (name, outcome), count in sorted(self.unpredicted.items()):
            label = f'version="{_escape_label(name)}",outcome="{outcome}"'
            lines.append(f"mlscale_unpredicted_total{{{label}}} {count}")
        lines += ["# HELP mlscale_swaps_total Changes of the version.", "# TYPE mlscale_swaps_total counter"]
        lines += [f'mlscale_swaps_total{{result="{result}"}} {count}' for result, count in sorted(self.swaps.items())]
        help_text = "From the last byte of a request for inference to its answer."
        lines += [f"# HELP mlscale_request_seconds {help_text}", "# TYPE mlscale_request_seconds histogram"]
        lines += self.latency.format_histogram("mlscale_request_seconds")
        lines += [
            "# HELP mlscale_batch_rows Rows computed at once: a sample each, of a document a window.",
            "# TYPE mlscale_batch_rows histogram",
        ]
        lines += self.batches.format_histogram("mlscale_batch_rows")
        computed = ("mlscale_compute_seconds_total", "counter", "Time in the model.", self.compute_s)
        for series, kind, help_, value in (computed, *others):
            lines += [f"# HELP {series} {help_}", f"# TYPE {series} {kind}", f"{series} {value:.9g}"]
        return ("\n".join(lines) + "\n").encode()


def _escape_label(text: str) -> str:
    # Escapes of the text format: backslash first, or it would escape those of the others again.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
