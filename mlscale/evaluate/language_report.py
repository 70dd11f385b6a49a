"""Report of a language model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.evaluate.report_wording import Judged, in_numbers, named
from mlscale.evaluate.sample_collector import Gathered
from mlscale.report import Bars, Heading, Series
from mlscale.stats.bootstrap import Bootstrap, bootstrap

Floats = NDArray[np.float64]


def judge(gathered: Gathered, seed: int = 0) -> Judged:
    """Return bits per byte (of byte-level models: bits per token) and perplexity. The bootstrap draws sequences, not
    tokens: the tokens of one sequence depend on each other."""
    columns = gathered.columns
    found, tokens = figures_of(columns, seed), int(columns["tokens"].sum())
    bits = np.asarray(columns["loss"], np.float64) / np.log(2)  # from nats
    counts, edges = np.histogram(bits, 20)
    return Judged(
        metrics={
            **named("bits_per_byte", found[0]),
            **named("perplexity", found[1]),
            "tokens": tokens,
            "samples": len(gathered),
        },
        headline=f"{in_numbers(found[0])} bits per byte, of {tokens:,} bytes in {len(gathered):,} sequences",
        figures=[
            Heading("Bits per byte", f"{in_numbers(found[0])}; perplexity {in_numbers(found[1])}."),
            Bars(
                "Bits per byte of the sequences", [f"{edge:.2f}" for edge in edges[:-1]],
                [Series("sequences", [float(count) for count in counts])], "bits per byte from", "sequences",
            ),
        ],
    )  # fmt: skip


def figures_of(columns: dict[str, NDArray[np.generic]], seed: int = 0) -> Bootstrap:
    """Return bits per token and perplexity, (2,), with intervals."""
    # Sums of both: a long sequence weighs more than a short one, as in the usual definition of perplexity.
    rows = np.stack([np.asarray(columns[name], np.float64) for name in ("nats", "tokens")], 1)

    def statistic(sums: Floats) -> Floats:
        nats = sums[:, 0] / np.maximum(sums[:, 1], 1)
        return np.stack([nats / np.log(2), np.exp(nats)], 1)

    return bootstrap(rows, statistic, seed=seed)
