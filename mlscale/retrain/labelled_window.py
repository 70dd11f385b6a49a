"""The window: labelled samples of production, each once, split into two parts that never mix.

Events come from clients, so nothing of them is trusted: samples that do not fit the model are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.windows.window_folder import GROUP, SampleFacts
from mlscale.retrain.window_samples import (
    NewCategories,
    check_mask_size,
    compute_labelled_digest,
    compute_sample_digest,
    count_new_categories,
    decode_event_sample,
)
from mlscale.stats.design_effect import number_groups

if TYPE_CHECKING:
    from mlscale.events.event_table import Events
    from mlscale.export.servable import Servable


@dataclass(frozen=True, eq=False)
class LabelledWindow:
    """n labelled samples, oldest first.

    Attributes:
        samples: as a client sends them: rows by column name, texts as bytes, pixels (channels, height, width).
        labels: in the form of the task type (`parse_label`); None where it has no labels.
        held_out: True for samples that are not trained on, but compare champion and challenger; bool (n,).
        since, until: times of the first and the last event, ISO 8601, UTC; '' where there is none.
        labelled: the number of events with a label.
        left_out: the number of them that are not among the samples, by reason.
        new_categories: the samples of each category that the model does not know, by column.
        facts: of the samples when they were sent, which they no longer show, such as the width of an image; see
            `EncodedSamples`.
        digests: of each sample with its label, uint64 (n,); later cycles leave out what they find again.
    """

    samples: list[Any]
    labels: list[Any]
    held_out: NDArray[np.bool_]
    since: str = ""
    until: str = ""
    labelled: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    new_categories: NewCategories = field(default_factory=dict)
    facts: SampleFacts = field(default_factory=dict)
    digests: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))

    def __len__(self) -> int:
        return len(self.samples)

    def select_part(self, *, is_held_out: bool) -> tuple[list[Any], list[Any]]:
        """Return the samples of one part, and their labels."""
        numbers = np.flatnonzero(self.held_out == is_held_out).tolist()
        return [self.samples[number] for number in numbers], [self.labels[number] for number in numbers]

    def select_held_out_facts(self) -> SampleFacts:
        """Return the facts of the held-out samples."""
        return {name: values[self.held_out] for name, values in self.facts.items()}

    def summarize_window(self) -> dict[str, Any]:
        """Return the summary of the window for the journal."""
        held_out = int(self.held_out.sum())
        return {
            "since": self.since,
            "until": self.until,
            "labelled": self.labelled,
            "samples": len(self),
            "train": len(self) - held_out,
            "held_out": held_out,
            "left_out": dict(self.left_out),
            "new_categories": {name: dict(counts) for name, counts in self.new_categories.items()},
        }


@dataclass(frozen=True)
class _Selected:
    row: int
    sample: Any
    label: Any
    digest: int
    side: bytes


def select_labelled_window(
    events: Events, servable: Servable, *, model: str, held_out: float, most: int, earlier: Set[int] = frozenset()
) -> LabelledWindow:
    """Return the latest samples that can be used for training.

    The same input counts once, with its latest label: a copy adds no information, and must not be on both sides of the
    split. The side follows from the bytes of the input, or from its group where it has one, and the model's name only,
    so it never changes in later cycles: what one user sends again, nearly the same, is never on both sides.
    What an earlier window of the champion's lineage holds is a part of its data, and would count twice; with another
    label it is new.

    Args:
        events: with samples (`samples=True`), oldest first; joined with labels, where the task type has any.
        servable: of the model.
        model: its name.
        held_out: the share that is not trained on, between 0 and 1.
        most: the most samples.
        earlier: digests of labelled samples of the windows that the champion was trained on.
    """
    samples, kinds = (events.table[name].to_pylist() for name in ("sample", "sample_kind"))
    groups = events.table["group"].to_pylist()
    truth = events.truth.tolist() if servable.task_type.needs_label else [None] * len(events)
    taken: dict[bytes, _Selected] = {}
    known: set[bytes] = set()
    left_out: Counter[str] = Counter()
    # From the newest: the latest label of an input wins, and older events are left out beyond `most`.
    for row in reversed(range(len(events))):
        try:
            sample = _decode_sample(samples[row], kinds[row], servable)
            label = _parse_label(truth[row], servable)
        except _UnusableError as error:
            left_out[str(error)] += 1
            continue
        digest = compute_sample_digest(sample, model)
        labelled = compute_labelled_digest(digest, label)
        if digest in taken or digest in known:
            left_out["seen before"] += 1
        elif labelled in earlier:
            # Its latest label is the one that was learned: an older one that differs must not be taken.
            known.add(digest)
            left_out["in the window of an earlier version"] += 1
        elif len(taken) == most:
            left_out["older than the latest"] += 1
        else:
            side = compute_sample_digest(groups[row].encode(), model) if groups[row] else digest
            taken[digest] = _Selected(row, sample, label, labelled, side)
    # Back to oldest first.
    selected = list(reversed(taken.values()))
    times = events.time
    return LabelledWindow(
        samples=[one.sample for one in selected],
        labels=[one.label for one in selected],
        # The 8 bytes of a digest are uniform from 0 to 2**64 - 1.
        held_out=np.array([int.from_bytes(one.side) < held_out * 2**64 for one in selected], bool),
        since=_format_time(times[selected[0].row]) if selected else "",
        until=_format_time(times[selected[-1].row]) if selected else "",
        labelled=len(events),
        left_out=dict(left_out),
        new_categories=count_new_categories((one.sample for one in selected), servable),
        facts=_collect_facts(events, servable, [one.row for one in selected]),
        digests=np.array([one.digest for one in selected], np.uint64),
    )


class _UnusableError(Exception):
    """The reason why an event is left out."""


def _collect_facts(events: Events, servable: Servable, rows: list[int]) -> SampleFacts:
    """Return the facts of raw samples that events have as columns, and the number of the group of each if known;
    events of an earlier format have none."""
    columns = {name: f"input.{name}" for name in servable.encoder.fact_names}
    known = set(events.table.schema.names)
    facts = {name: events.get_column(column)[rows] for name, column in columns.items() if column in known}
    groups = number_groups(events.get_column(GROUP)[rows])
    return facts if groups is None else {**facts, GROUP: groups.astype(np.float64)}


def _decode_sample(content: bytes | None, kind: str, servable: Servable) -> Any:
    if content is None:
        raise _UnusableError("without a sample")
    try:
        return decode_event_sample(content, kind, servable)
    except ValueError:
        raise _UnusableError("a sample that the model does not take") from None


def _parse_label(value: Any, servable: Servable) -> Any:
    if not servable.task_type.needs_label:
        return None
    try:
        label = servable.task_type.parse_label(value, servable.names)
    except ValueError:
        raise _UnusableError("a label that the model does not have") from None
    if servable.task_type.label_form == "mask":
        try:
            check_mask_size(servable, label)
        except ValueError:
            raise _UnusableError("a mask of another size") from None
    return label


def _format_time(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, 'ms')}Z"
