"""`mlscale data show`: the facts of a data set."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from mlscale.commands.data.opened_data import OpenedData
from mlscale.data.data_facts import DataFacts, describe_facts
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.inspection.shown_samples import name_classes
from mlscale.report import Figure, HorizontalBarPlot, Result, TableBlock, format_number
from mlscale.report.text import format_percent

_CLASSES = 40
"""Classes that are listed; the most and the least frequent ones of more."""


def show_facts(opened: OpenedData) -> Result:
    """Return samples by split, classes with counts, columns or channels, version and guarantees."""
    facts, backend = opened.facts, opened.backend
    counts = {split: backend.count_samples(split) for split in backend.list_splits()}
    # What a run can guarantee depends on its data first of all.
    promises = backend.promises
    promised = {"order": promises.order, "exact resume": promises.resume, "any number of ranks": promises.elastic}
    splits = [(split, f"{count:,}") for split, count in counts.items()]
    samples = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    return Result(
        command="data",
        ok=True,
        sentence=f"{opened.name}: {samples} samples of {describe_facts(asdict(facts))}",
        metrics={f"{split}_samples": count for split, count in counts.items()},
        figures=(TableBlock("Splits", ("split", "samples"), splits), *_build_tables(opened, facts)),
        details={
            "data_version": facts.version,
            **({"label_digest": facts.label_digest} if facts.label_digest else {}),
            "guarantees": ", ".join(name for name, holds in promised.items() if holds) or "none",
            **_describe_details(opened, facts),
        },
    )


def _build_tables(opened: OpenedData, facts: DataFacts) -> list[Figure]:
    tables: list[Figure] = []
    if facts.num_classes and facts.class_counts:
        tables += _build_class_tables(facts)
    if facts.mean:
        rows = [
            (str(channel), format_number(mean), format_number(std))
            for channel, (mean, std) in enumerate(zip(facts.mean, facts.std, strict=True))
        ]
        tables.append(TableBlock("Channels of the training data", ("channel", "mean", "std"), rows, terminal=True))
    if facts.target_mean:
        targets = [target.name for target in opened.backend.describe_targets()]
        rows = [
            (name, format_number(mean), format_number(std))
            for name, mean, std in zip(targets, facts.target_mean, facts.target_std, strict=True)
        ]
        tables.append(TableBlock("Numbers to predict", ("target", "mean", "std"), rows, terminal=True))
    encoder = opened.backend.encoder()
    # Of images and texts there is nothing to list: they have no columns.
    if isinstance(encoder, TableEncoder):
        rows = [_describe_column(column) for column in encoder.describe_raw_input()["columns"]]
        tables.append(TableBlock("Columns", ("column", "type", "values"), rows, terminal=True))
    return tables


def _build_class_tables(facts: DataFacts) -> list[Figure]:
    counts, total = facts.class_counts, max(1, sum(facts.class_counts))
    ordered = sorted(zip(name_classes(facts), counts, strict=True), key=lambda item: -item[1])
    shown = ordered if len(ordered) <= _CLASSES else [*ordered[: _CLASSES // 2], *ordered[-_CLASSES // 2 :]]
    rows = [(name, f"{count:,}", format_percent(count / total)) for name, count in shown]
    rest = len(ordered) - len(shown)
    note = f"{rest:,} classes between are left out" if rest else ""
    bars = HorizontalBarPlot("Training samples by class", shown)
    return [TableBlock("Classes", ("class", "in training", "share"), rows, note, terminal=True), bars]


def _describe_column(schema: dict[str, object]) -> tuple[str, str, str]:
    """Return name, type and values of a column, from the schema of the raw input."""
    categories = schema.get("categories")
    if isinstance(categories, list):
        shown = ", ".join(map(str, categories[:6])) + (", …" if len(categories) > 6 else "")
        return str(schema["name"]), "category", f"{len(categories)}: {shown}"
    low, high = (schema.get(name) for name in ("minimum", "maximum"))
    unit = f" {schema['unit']}" if schema.get("unit") else ""
    known = isinstance(low, float | int) and isinstance(high, float | int)
    return str(schema["name"]), "number", f"{format_number(low)} to {format_number(high)}{unit}" if known else ""  # type: ignore[arg-type]


def _describe_details(opened: OpenedData, facts: DataFacts) -> dict[str, object]:
    known = {name: value for name, value in asdict(facts).items() if value not in (None, (), [])}
    return {
        "facts": {**known, "sample": list(np.atleast_1d(facts.sample).tolist())},
        "input": opened.backend.encoder().describe_raw_input(),
    }
