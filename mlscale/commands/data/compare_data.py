"""`mlscale data diff`: what two versions of a data set differ in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.commands.data.opened_data import OpenedData
from mlscale.data.backend import Backend
from mlscale.data.data_facts import DataFacts
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.summaries.text_summary import create_summary
from mlscale.data.encoders.table_columns import NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.images.decoded_cache import iterate_single_samples
from mlscale.data.images.labelled_images import ImageBackend
from mlscale.data.images.sample_probe import NoReadableSampleError
from mlscale.data.inspection.sample_changes import SampleChanges, find_changes
from mlscale.data.inspection.shown_samples import name_classes
from mlscale.data.order.bad_samples import BadRecord, BadSample, write_bad_list
from mlscale.errors import MLScaleError, call_all
from mlscale.monitor.drift import ColumnDrift, DriftLimits, compare_columns
from mlscale.monitor.drift.column_drift import Column
from mlscale.monitor.drift_plots import list_changed_columns, plot_drifted_columns
from mlscale.reference.column_sketch import ColumnSketch, build_category_sketch, build_number_sketch
from mlscale.report import Figure, Result, TableBlock, format_number
from mlscale.report.sample_bar import SampleProgressBar
from mlscale.report.text import format_count, format_percent
from mlscale.task_types.event_forms import SummaryColumns

_LIMITS = DriftLimits(fdr=0.01, min_distance=0.0)
_CLASSES = 40
_BATCH = 1024


def compare_data(first: OpenedData, second: OpenedData, split: str, count: int) -> Result:
    """Return the differences of a split: samples added, removed and relabelled, classes, and columns that drifted.

    Columns are those of the first side's encoder, such as the columns of a table, or brightness and size of images. A
    column is named if its distribution differs at a false-discovery rate of 1 % over all columns.

    Args:
        first, second: the two sides.
        split: 'train', 'val' or 'test'.
        count: samples of each side that columns are computed of; 0 for all.

    Raises:
        MLScaleError: the sides hold samples of different kinds, or one has no such split.
    """
    _check_kinds(first, second)
    changes = find_changes(first.backend, second.backend, split)
    columns, bad = _compare_columns(first, second, split, count)
    drifted = [column for column in columns if column.is_significant]
    tables = [*_build_samples_table(first, second, split, changes, bad), *_build_class_table(first.facts, second.facts)]
    rows = [(column.label, column.format_change(), f"{column.distance:.3f}") for column in drifted]
    tables.append(TableBlock("Columns that drifted", ("column", "change", "distance"), rows, terminal=True))
    return Result(
        command="data",
        ok=True,
        sentence=_summarize(first, second, changes, drifted, bad),
        metrics={
            "first_samples": first.backend.count_samples(split),
            "second_samples": second.backend.count_samples(split),
            **({} if changes is None else changes.list_counts()),
            # Of those that columns were computed of; `verify` reads all.
            "first_bad_samples": bad[0],
            "second_bad_samples": bad[1],
            "columns": len({column.name for column in columns}),
            "drifted_columns": len({column.name for column in drifted}),
        },
        figures=(*tables, *plot_drifted_columns(drifted)),
        details={
            "first_version": first.facts.version,
            "second_version": second.facts.version,
            **({"columns": list_changed_columns(columns, 0.0)} if drifted else {}),
        },
    )


def _check_kinds(first: OpenedData, second: OpenedData) -> None:
    kinds = [side.backend.encoder().kind for side in (first, second)]
    # Columns of one kind have no counterpart in another.
    if kinds[0] != kinds[1]:
        raise MLScaleError(
            f"a {kinds[0]} and a {kinds[1]} are not versions of one data set",
            where=f"command line: {first.name} {second.name}",
            why="both sides have samples of one kind",
            fix="mlscale data diff may.csv june.csv, versions of the same data: a setting counts for both",
        )


def _summarize(
    first: OpenedData,
    second: OpenedData,
    changes: SampleChanges | None,
    drifted: Sequence[ColumnDrift],
    bad: tuple[int, int],
) -> str:
    # By version and labels: among many columns of equal data a test would find one by chance.
    if first.facts.version == second.facts.version and first.facts.label_digest == second.facts.label_digest:
        return f"{first.name} and {second.name} hold the same data, version {first.facts.version}"
    parts = [str(changes)] if changes is not None else []
    names = list(dict.fromkeys(column.label for column in drifted))
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    parts.append(f"{format_count(len(names), 'column')} drifted: {shown}" if names else "no column drifted")
    for side, count in zip((first, second), bad, strict=True):
        if count:
            parts.append(f"{format_count(count, 'sample')} of {side.name} can't be read")
    return f"{first.name} → {second.name}: {'; '.join(parts)}"


def _build_samples_table(
    first: OpenedData, second: OpenedData, split: str, changes: SampleChanges | None, bad: tuple[int, int]
) -> list[Figure]:
    rows = [("samples", *(f"{side.backend.count_samples(split):,}" for side in (first, second)))]
    if any(bad):
        rows.append(("can't be read", *(f"{count:,}" for count in bad)))
    sides = (first.facts, second.facts)
    rows += (
        [
            ("mean of the channels", *(", ".join(map(format_number, facts.mean)) for facts in sides)),
            ("deviation of the channels", *(", ".join(map(format_number, facts.std)) for facts in sides)),
        ]
        if first.facts.mean
        else []
    )
    if changes is not None and changes.examples:
        rows += [(f"{kind}, such as", *names) for kind, names in changes.examples.items()]
    return [TableBlock("Samples", ("", first.name, second.name), rows, terminal=True)]


def _build_class_table(first: DataFacts, second: DataFacts) -> list[Figure]:
    """Return the training samples of each class on both sides, the largest change of a share first."""
    counts = [dict(zip(name_classes(facts), facts.class_counts, strict=False)) for facts in (first, second)]
    totals = [max(1, sum(side.values())) for side in counts]
    changes = {
        name: counts[1].get(name, 0) / totals[1] - counts[0].get(name, 0) / totals[0]
        # Of both sides: a class may be new, or gone.
        for name in dict.fromkeys([*counts[0], *counts[1]])
    }
    ordered = sorted(changes, key=lambda name: -abs(changes[name]))
    rows = [
        (
            name,
            *(f"{side[name]:,}" if name in side else "no such class" for side in counts),
            format_percent(changes[name], 2, sign="+"),
        )
        for name in ordered[:_CLASSES]
    ]
    rest = len(ordered) - len(rows)
    note = f"{rest:,} classes whose shares changed less are left out" if rest else ""
    return (
        [TableBlock("Classes in training", ("class", "first", "second", "change of share"), rows, note, terminal=True)]
        if rows
        else []
    )


def _compare_columns(
    first: OpenedData, second: OpenedData, split: str, count: int
) -> tuple[tuple[ColumnDrift, ...], tuple[int, int]]:
    """Return the drift of each column, and the number of samples of each side that can't be read."""
    # One encoder for both sides: two that were fitted apart would hide a change of units.
    encoder = first.backend.encoder()
    (before, bad), (now, others) = (_summarize_side(side, encoder, split, count) for side in (first, second))
    # What a user's own data module gives are tensors, whose elements have no names.
    if before is None or now is None:
        return (), (0, 0)
    units = (
        {column.name: column.unit for column in encoder.columns if isinstance(column, NumberColumn)}
        if isinstance(encoder, TableEncoder)
        else {}
    )
    sketches = [_build_sketch(name, values, units.get(name, "")) for name, values in before.items()]
    columns: dict[str, Column] = {
        f"input.{name}": np.array(values, object) if isinstance(values, list) else values
        for name, values in now.items()
    }
    return compare_columns(sketches, columns, np.empty(0, "datetime64[us]"), _LIMITS), (bad, others)


def _summarize_side(opened: OpenedData, encoder: Encoder, split: str, count: int) -> tuple[SummaryColumns | None, int]:
    """Return the columns of samples of a split, in an order of chance, and how many samples can't be read.

    The columns are None where samples are tensors already.
    """
    backend, summary = opened.backend, create_summary(encoder)
    total = backend.count_samples(split)
    rows = np.unique(np.linspace(0, total - 1, min(total, count or total)).astype(np.int64))
    # Files are often sorted, by class or by time: their order would look like dependence of one sample on the last.
    rows = np.random.default_rng(0).permutation(rows)
    parts: list[SummaryColumns] = []
    bad = 0
    for at in range(0, len(rows), _BATCH):
        raw = backend.read_raw_samples(split, rows[at : at + _BATCH])
        if raw is None:
            return None, 0
        packed = encoder.pack_samples(raw)
        bad += len(packed.bad)
        usable = [sample for number, sample in enumerate(raw) if number not in packed.bad]
        if usable:
            parts.append(summary.summarize_samples(packed if not packed.bad else encoder.pack_samples(usable)))
    return _join_columns(parts), bad


def _join_columns(parts: Sequence[SummaryColumns]) -> SummaryColumns:
    joined: SummaryColumns = {}
    for name in parts[0] if parts else ():
        values = [part[name] for part in parts]
        if isinstance(values[0], list):
            joined[name] = [value for part in values for value in part]
        else:
            joined[name] = np.concatenate([np.asarray(part, np.float64) for part in values])
    return joined


def _build_sketch(name: str, values: NDArray[np.float64] | list[str | None], unit: str) -> ColumnSketch:
    if isinstance(values, list):
        return build_category_sketch(f"input.{name}", "inputs", values, is_ordered=False)
    return build_number_sketch(f"input.{name}", "inputs", values, unit, is_ordered=False)


_SHOWN = 50


@dataclass(frozen=True)
class _StoredSplit:
    """A split whose samples are read one by one.

    Attributes:
        count: of its samples.
        iterate_samples: yields each of them, or its error.
    """

    count: int
    iterate_samples: Callable[[], Iterator[Any]]


def verify_samples(opened: OpenedData, path: Path | None) -> Result:
    """Read all samples of all splits as training does; the result is not ok if one can't be used.

    Args:
        opened: with bad samples, and without augmentation.
        path: a file for the bad ones, a JSON document a line; None for none.

    Raises:
        MLScaleError: the data can't be opened at all, or the file can't be written.
    """
    splits, version = _open_splits(opened.backend)
    counts = {name: split.count for name, split in splits.items()}
    rows: list[BadRecord] = []
    # One split after the other: the threads that decode are the machine's, whatever the number of splits.
    with SampleProgressBar(sum(counts.values())) as bar:
        for split, stored in splits.items():
            for batch in stored.iterate_samples():
                # A batch holds one sample, so that each bad one is named, and not the first of its batch alone.
                if isinstance(batch, BadSample):
                    rows.append(BadRecord.from_error(split, batch))
                bar.add_samples(1)
    if path is not None:
        write_bad_list(path, rows)
    total = sum(counts.values())
    of_splits = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    result = "all can be used" if not rows else f"{format_count(len(rows), 'bad sample')}, the first: {rows[0].key}"
    return Result(
        command="data",
        ok=not rows,
        sentence=f"{opened.name}: read {total:,} samples ({of_splits}): {result}",
        metrics={"samples": total, "bad_samples": len(rows)},
        artifacts={"bad": str(path)} if path else {},
        figures=(
            TableBlock(
                "Bad samples",
                ("split", "sample", "why"),
                rows[:_SHOWN],
                _note_rest(len(rows), path),
                terminal=True,
            ),
        ),
        details={
            **version,
            **({"bad": [{"split": split, "sample": key, "why": why} for split, key, why in rows]} if rows else {}),
        },
    )


def _open_splits(backend: Backend) -> tuple[dict[str, _StoredSplit], dict[str, str]]:
    """Return the splits by name, and the data's version, which data without a readable sample does not have."""
    try:
        version = {"data_version": backend.facts().version}
    except NoReadableSampleError:
        # Without one the images have no common size, but each is bad, or not, by itself.
        assert isinstance(backend, ImageBackend)
        size, most = backend.image_size, backend.max_pixels
        sources = call_all(backend.build_openers())
        return {
            split: _StoredSplit(len(source), partial(iterate_single_samples, source, size, most))
            for split, source in sources.items()
        }, {}
    return {
        split: _StoredSplit(backend.count_samples(split), partial(backend.iterate_stored_samples, split))
        for split in backend.list_splits()
    }, version


def _note_rest(count: int, path: Path | None) -> str:
    if count <= _SHOWN:
        return ""
    return f"{count - _SHOWN:,} more: " + (
        f"they are in {path}" if path else "bad=bad.jsonl writes all of them to a file"
    )
