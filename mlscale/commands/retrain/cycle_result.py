"""The report of a retraining cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.report import BarPlot, Result, Series

if TYPE_CHECKING:
    from mlscale.retrain.journal import RetrainingCycle, RetrainingJournal
    from mlscale.retrain.labelled_window import LabelledWindow


def explain_too_few(needed: int, model: str, window: LabelledWindow) -> str:
    """Return the reason why nothing is trained, and the fix."""
    # Labelled events that can't be used, counted by reason: `window.labelled` alone would not explain the shortage.
    left_out = ", ".join(f"{count:,} {why}" for why, count in window.left_out.items())
    return (
        f"{model} needs {needed:,} labelled events with samples; there are {len(window):,}"
        + (f" ({window.labelled:,} labelled; left out: {left_out})" if left_out else "")
        + "; serve with sample_share=1, send labels to POST /labels"
    )


def describe_window(window: LabelledWindow) -> str:
    """Return a text with the size of a window and of its two sides."""
    held_out = int(window.held_out.sum())
    return f"{len(window):,} labelled samples, {len(window) - held_out:,} to train on, {held_out:,} held out"


def build_retrain_result(
    cycle: RetrainingCycle, journal: RetrainingJournal, seconds: float, overrides: list[str]
) -> Result:
    """Return the result of a cycle that has ended."""
    from mlscale.retrain.journal import PROMOTED

    metrics = cycle.figures
    sentence = f"{cycle.challenger or cycle.champion} {cycle.decision}: {cycle.reason}"
    # A cycle without a comparison (too few samples, a refused export) has no metrics.
    if metrics:
        sentence += (
            f". Held-out accuracy {metrics['challenger_window_accuracy']:.2%} against "
            f"{metrics['champion_window_accuracy']:.2%} of {cycle.champion} (p {metrics['window_p_better']:.2g}); on "
            f"the original data {metrics['original_difference']:+.2%}, at worst "
            f"{metrics['original_difference_low']:+.2%}; "
            f"CPU time {metrics['latency_ratio']:.2f}×"
        )
    counts = {f"window_{name}": cycle.window[name] for name in ("labelled", "samples", "train", "held_out")}
    made = {"run": cycle.run["path"]} if cycle.run else {}
    return Result(
        command="retrain",
        # A rejected challenger is not an error, but exit code 4: scripts see that the champion stayed.
        ok=cycle.decision == PROMOTED,
        sentence=sentence,
        metrics={**metrics, **counts, "time_s": seconds},
        artifacts={**made, "journal": str(journal.path)},
        overrides=overrides,
        figures=_plot_accuracy(cycle),
    )


def _plot_accuracy(cycle: RetrainingCycle) -> tuple[BarPlot, ...]:
    """Return the plot of both models on both sets of samples; empty without a comparison."""
    if not cycle.figures:
        return ()
    models = (("champion", cycle.champion), ("challenger", str(cycle.challenger)))
    series = [
        Series(name, [cycle.figures[f"{who}_{samples}_accuracy"] for samples in ("window", "original")])
        for who, name in models
    ]
    labels = ["held-out window", "original data"]
    return (BarPlot("Accuracy of champion and challenger, on the same samples", labels, series, "samples", "accuracy"),)
