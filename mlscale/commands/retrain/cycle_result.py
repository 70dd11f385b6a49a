"""The report of a retraining cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.report import Bars, Result, Series

if TYPE_CHECKING:
    from mlscale.retrain.journal import Journal, Turn
    from mlscale.retrain.labelled_window import Window


def too_few(needed: int, model: str, window: Window) -> str:
    """Return the reason why nothing is trained, and the fix."""
    # Labelled events that can't be used, counted by reason: `window.labelled` alone would not explain the shortage.
    left_out = ", ".join(f"{count:,} {why}" for why, count in window.left_out.items())
    return (
        f"{model} needs {needed:,} labelled events with samples; there are {len(window):,}"
        + (f" ({window.labelled:,} labelled; left out: {left_out})" if left_out else "")
        + "; serve with sample_share=1, send labels to POST /labels"
    )


def shown(window: Window) -> str:
    """Return a text with the size of a window and of its two sides."""
    held_out = int(window.held_out.sum())
    return f"{len(window):,} labelled samples, {len(window) - held_out:,} to train on, {held_out:,} held out"


def result_of(turn: Turn, journal: Journal, seconds: float, overrides: list[str]) -> Result:
    """Return the result of a cycle that has ended."""
    from mlscale.retrain.journal import PROMOTED

    figures = turn.figures
    sentence = f"{turn.challenger or turn.champion} {turn.decision}: {turn.reason}"
    # A cycle without a comparison (too few samples, a refused export) has no metrics.
    if figures:
        sentence += (
            f". Held-out accuracy {figures['challenger_window_accuracy']:.2%} against "
            f"{figures['champion_window_accuracy']:.2%} of {turn.champion} (p {figures['window_p_better']:.2g}); on "
            f"the original data {figures['original_difference']:+.2%}, at worst "
            f"{figures['original_difference_low']:+.2%}; "
            f"CPU time {figures['latency_ratio']:.2f}×"
        )
    counts = {f"window_{name}": turn.window[name] for name in ("labelled", "samples", "train", "held_out")}
    made = {"run": turn.run["path"]} if turn.run else {}
    return Result(
        verb="retrain",
        # A rejected challenger is not an error, but exit code 4: scripts see that the champion stayed.
        ok=turn.decision == PROMOTED,
        sentence=sentence,
        metrics={**figures, **counts, "time_s": seconds},
        artifacts={**made, "journal": str(journal.path)},
        overrides=overrides,
        figures=_figures(turn),
    )


def _figures(turn: Turn) -> tuple[Bars, ...]:
    """Return the plot of both models on both sets of samples; empty without a comparison."""
    if not turn.figures:
        return ()
    models = (("champion", turn.champion), ("challenger", str(turn.challenger)))
    series = [
        Series(name, [turn.figures[f"{who}_{samples}_accuracy"] for samples in ("window", "original")])
        for who, name in models
    ]
    labels = ["held-out window", "original data"]
    return (Bars("Accuracy of champion and challenger, on the same samples", labels, series, "samples", "accuracy"),)
