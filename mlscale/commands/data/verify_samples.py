"""`mlscale data verify`: read every sample, and name each that can't be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlscale.commands.data.opened_data import OpenedData
from mlscale.data.backend import Backend
from mlscale.data.images.decoded_cache import iterate_single_samples
from mlscale.data.images.labelled_images import ImageBackend
from mlscale.data.images.sample_probe import NoReadableSampleError
from mlscale.data.inspection.bad_list import write_bad_list
from mlscale.data.order.bad_samples import BadRecord, BadSample
from mlscale.errors import call_all
from mlscale.report import Result, TableBlock
from mlscale.report.sample_bar import SampleProgressBar
from mlscale.report.text import format_count

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
