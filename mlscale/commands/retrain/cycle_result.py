"""The report of a retraining cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.report import BarPlot, Result, Series

if TYPE_CHECKING:
    from mlscale.retrain.gate.promotion_decision import GateDecision
    from mlscale.retrain.journal import RetrainingCycle, RetrainingJournal
    from mlscale.retrain.labelled_window import LabelledWindow
    from mlscale.retrain.window_samples import NewCategories


_SHOWN = 5
"""New categories that a sentence names."""


def explain_too_few(needed: int, model: str, window: LabelledWindow, *, needs_label: bool = True) -> str:
    """Return the reason why nothing is trained, and the fix."""
    what, labels = ("labelled events", ", send labels to POST /labels") if needs_label else ("events", "")
    # Labelled events that can't be used, counted by reason: `window.labelled` alone would not explain the shortage.
    left_out = ", ".join(f"{count:,} {why}" for why, count in window.left_out.items())
    return (
        f"{model} needs {needed:,} {what} with samples; there are {len(window):,}"
        + (f" ({window.labelled:,} {what}; left out: {left_out})" if left_out else "")
        + f"; serve with sample_share=1{labels}"
    )


def describe_window(window: LabelledWindow) -> str:
    """Return a text with the size of a window and of its two sides."""
    held_out = int(window.held_out.sum())
    sizes = f"{len(window):,} samples, {len(window) - held_out:,} to train on, {held_out:,} held out"
    new = describe_new_categories(window.new_categories)
    return f"{sizes}; {new}" if new else sizes


def describe_new_categories(counts: NewCategories) -> str:
    """Return a text with the categories that the model does not know, the most frequent first; '' for none."""
    counted = sorted(((-n, name, value) for name, values in counts.items() for value, n in values.items()))
    shown = ", ".join(f"{name} {value!r} ({-n:,} samples)" for n, name, value in counted[:_SHOWN])
    more = f" and {len(counted) - _SHOWN} more" if len(counted) > _SHOWN else ""
    return f"new categories, which neither model knows: {shown}{more}" if counted else ""


def build_retrain_result(
    cycle: RetrainingCycle,
    judged: GateDecision | None,
    journal: RetrainingJournal,
    seconds: float,
    overrides: list[str],
) -> Result:
    """Return the result of a cycle that has ended.

    Args:
        cycle: with its decision.
        judged: the comparison; None where it came to none.
        journal: that it is recorded in.
        seconds: of the cycle.
        overrides: as typed.
    """
    from mlscale.retrain.gate.gate_tables import build_class_blocks, build_class_entries
    from mlscale.retrain.journal import PROMOTED

    metrics = cycle.figures
    sentence = f"{cycle.challenger or cycle.champion} {cycle.decision}: {cycle.reason}"
    # A cycle without a comparison (too few samples, a refused export) has no metrics.
    if judged is not None:
        sentence += f". {_describe_comparison(cycle, judged)}"
    if new := describe_new_categories(cycle.window.get("new_categories", {})):
        sentence += f"; {new}"
    counts = {f"window_{name}": cycle.window[name] for name in ("labelled", "train", "held_out")}
    # `window_samples` of a comparison are the held-out ones that it was made on, next to the metrics of them.
    counts["window_total"] = cycle.window["samples"]
    made = {"run": cycle.run["path"]} if cycle.run else {}
    return Result(
        command="retrain",
        # A rejected challenger is not an error, but exit code 4: scripts see that the champion stayed.
        ok=cycle.decision == PROMOTED,
        sentence=sentence,
        metrics={**metrics, **counts, "time_s": seconds},
        artifacts={**made, "journal": str(journal.path)},
        overrides=overrides,
        figures=(*_plot_metric(cycle, judged), *build_class_blocks(judged.classes, is_share=judged.metric.is_share))
        if judged is not None
        else (),
        details={"classes": entries} if judged is not None and (entries := build_class_entries(judged.classes)) else {},
    )


def _describe_comparison(cycle: RetrainingCycle, judged: GateDecision) -> str:
    metrics, name = judged.metrics, judged.metric.name
    values = [
        f"{metrics[f'{who}_window_{name}']:.2%}" if judged.metric.is_share else f"{metrics[f'{who}_window_{name}']:.4g}"
        for who in ("challenger", "champion")
    ]
    parts = [
        f"Held-out {judged.metric.display_name} {values[0]} against {values[1]} of {cycle.champion} "
        f"(p {metrics['window_p_better']:.2g})"
    ]
    if "original_difference" in metrics:
        low = metrics.get("original_difference_low")
        parts.append(
            f"on the original data {judged.metric.describe_difference(metrics['original_difference'])}"
            + (f", at worst {judged.metric.describe_difference(low)}" if low is not None else "")
            + f", {metrics['original_negative_flips']:,} negative flips"
        )
    return "; ".join([*parts, f"CPU time {metrics['latency_ratio']:.2f}×"])


def _plot_metric(cycle: RetrainingCycle, judged: GateDecision) -> tuple[BarPlot, ...]:
    """Return the plot of both models on the sets of samples that they were compared on."""
    models = (("champion", cycle.champion), ("challenger", str(cycle.challenger)))
    name, shown = judged.metric.name, judged.metric.display_name
    parts = [part for part in ("window", "original") if f"champion_{part}_{name}" in judged.metrics]
    series = [Series(model, [judged.metrics[f"{who}_{part}_{name}"] for part in parts]) for who, model in models]
    labels = [{"window": "held-out window", "original": "original data"}[part] for part in parts]
    title = f"{shown[0].upper()}{shown[1:]} of champion and challenger, on the same samples"
    return (BarPlot(title, labels, series, "samples", shown),)
