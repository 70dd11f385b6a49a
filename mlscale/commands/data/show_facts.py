"""`mlscale data show`: the facts of a data set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np

from mlscale.commands.data.opened_data import OpenedData
from mlscale.config.schema.roots import find_roots
from mlscale.data.cache_folder import get_cache_dir
from mlscale.data.data_facts import DataFacts, describe_facts
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.inspection.shown_samples import (
    ShownSample,
    build_image_sheet,
    describe_input,
    describe_label,
    name_classes,
    name_inputs,
)
from mlscale.data.order.batch_plan import Batch
from mlscale.report import Figure, HorizontalBarPlot, Result, TableBlock, format_number, format_size
from mlscale.report.text import format_count, format_percent

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


_INDEXES = "index"


def list_sets(config_dirs: Sequence[str]) -> Result:
    """Return the options of the group `data`, and the sets of the cache."""
    # Files are read, and classes not imported: some need packages that are not installed.
    options = find_roots(config_dirs).files.get("data", {})
    rows = [(f"data={name}", _read_summary(file)) for name, file in sorted(options.items())]
    cached = _list_cached(get_cache_dir())
    return Result(
        command="data",
        ok=True,
        sentence=f"{len(rows)} options of data=, {len(cached)} prepared sets in {get_cache_dir()}",
        figures=(
            TableBlock("What data= can read", ("option", "what it is"), rows, terminal=True),
            TableBlock(
                "In the cache", ("set", "size"), [(name, format_size(size)) for name, size in cached], terminal=True
            ),
        ),
        details={"options": dict(rows), "cache": dict(cached)},
    )


def _read_summary(file: Path) -> str:
    """Return the first sentence of the comment at the top of an option's file."""
    lines = [line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return re.split(r"(?<=\.) (?=[A-Z])", " ".join(line for line in lines if not line.startswith("@package")))[0]


def _list_cached(folder: Path) -> list[tuple[str, int]]:
    """Return the sets of the cache with their bytes; the folder of indexes is none."""
    if not folder.is_dir():
        return []
    return [
        (path.name, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name != _INDEXES and not path.name.startswith(".")
    ]


_TITLE = "After augmentation, before it is normalised"


def show_samples(opened: OpenedData, split: str, count: int) -> Result:
    """Return the first samples of an epoch, as batches hold them: images on a sheet, others as a table."""
    samples = list(islice(_iterate_samples(opened, split), max(1, count)))
    facts, encoder = opened.facts, opened.backend.encoder()
    targets = [target.name for target in opened.backend.describe_targets()]
    labels = [describe_label(sample.y, facts, targets) for sample in samples]
    shown: list[Figure] = []
    # Channels, height, width: tables and texts have one dimension.
    if samples[0].x.ndim == 3:
        shown.append(build_image_sheet(_TITLE, samples, labels, facts))
    rows = [
        (sample.key, label, *describe_input(sample.x, encoder)) for sample, label in zip(samples, labels, strict=True)
    ]
    names = ("sample", "label", *name_inputs(encoder))[: len(rows[0])]
    shown.append(TableBlock("Samples", names, rows, terminal=True))
    return Result(
        command="data",
        ok=True,
        sentence=f"{opened.name}: the first {format_count(len(samples), 'sample')} of {split}, as the model gets them",
        metrics={"samples": len(samples)},
        figures=shown,
        details={"data_version": facts.version},
    )


def _iterate_samples(opened: OpenedData, split: str) -> Iterator[ShownSample]:
    """Yield each sample of the batches of an epoch."""
    # Through a loader, and not from the source: augmentation and mixing are what is to be seen.
    backend = opened.backend
    backend.setup("fit")
    loaders: dict[str, Callable[[], Iterable[Batch]]] = {
        "train": backend.train_dataloader,
        "val": backend.val_dataloader,
        "test": backend.test_dataloader,
    }
    for batch in loaders[split]():
        for row, key in enumerate(batch["key"]):
            # Copied: a loader uses its arrays again.
            yield ShownSample(key, batch["x"][row].numpy().copy(), batch["y"][row].numpy().copy())
