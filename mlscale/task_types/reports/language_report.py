"""Report of a language model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.report import BarPlot, Heading, Series
from mlscale.stats.bootstrap import Bootstrap, bootstrap_intervals
from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.report_wording import EvaluationReport, expand_interval, format_number_interval

Floats = NDArray[np.float64]


def build_language_report(gathered: CollectedSamples, seed: int = 0) -> EvaluationReport:
    """Return bits per byte and perplexity. The bootstrap draws sequences, not
    tokens: the tokens of one sequence depend on each other."""
    columns = gathered.columns
    intervals, tokens = compute_language_metrics(columns, seed), int(columns["tokens"].sum())
    in_bytes = np.asarray(columns["bytes" if "bytes" in columns else "tokens"], np.float64)
    bits = np.asarray(columns["nats"], np.float64) / np.maximum(in_bytes, 1) / np.log(2)  # from nats
    counts, edges = np.histogram(bits, 20)
    return EvaluationReport(
        metrics={
            **expand_interval("bits_per_byte", intervals[0]),
            **expand_interval("perplexity", intervals[1]),
            "tokens": tokens,
            "samples": len(gathered),
        },
        headline=f"{format_number_interval(intervals[0])} bits per byte, "
        f"of {tokens:,} {'bytes' if 'bytes' not in columns else 'tokens'} in {len(gathered):,} sequences",
        blocks=[
            Heading(
                "Bits per byte",
                f"{format_number_interval(intervals[0])}; perplexity {format_number_interval(intervals[1])}.",
            ),
            BarPlot(
                "Bits per byte of the sequences", [f"{edge:.2f}" for edge in edges[:-1]],
                [Series("sequences", [float(count) for count in counts])], "bits per byte from", "sequences",
            ),
        ],
    )  # fmt: skip


def compute_language_metrics(columns: dict[str, NDArray[np.generic]], seed: int = 0) -> Bootstrap:
    """Return bits per byte and perplexity, (2,), with intervals."""
    # Sums of both: a long sequence weighs more than a short one, as in the usual definition of perplexity.
    names = ("nats", "tokens", "bytes" if "bytes" in columns else "tokens")
    rows = np.stack([np.asarray(columns[name], np.float64) for name in names], 1)

    def compute_bits_and_perplexity(sums: Floats) -> Floats:
        nats = sums[:, 0] / np.maximum(sums[:, 1], 1)
        return np.stack([sums[:, 0] / np.maximum(sums[:, 2], 1) / np.log(2), np.exp(nats)], 1)

    return bootstrap_intervals(rows, compute_bits_and_perplexity, seed=seed)
