"""The bookkeeping of bad samples, without images: what is asked for again, what is counted, what is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from numpy.typing import NDArray

from mlscale.data.order.bad_samples import (
    BadRecord,
    BadSample,
    SkippedSamples,
    SkippingBatches,
    describe_tolerated,
    format_skipped_samples,
    gather_tolerated,
)
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.errors import MLScaleError

BAD = {1, 2, 6}


def damage(sample: int) -> BadSample:
    return BadSample(sample, f"k{sample}", "is bad", why="torn")


class Stream:
    """Gives what is planned; a bad sample in place of the batch that has it. Notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, plans: Iterable[BatchPlan]) -> Iterator[Batch | BadSample]:
        for plan in plans:
            samples = plan.samples.tolist()
            self.asked.append(samples)
            bad = next((sample for sample in samples if sample in BAD), None)
            yield {"samples": samples} if bad is None else damage(bad)


def plan(*samples: int, weight: list[float] | None = None) -> BatchPlan:
    weights = None if weight is None else np.array(weight, np.float32)
    return BatchPlan(0, np.arange(len(samples)), np.array(samples), weight=weights)


def run(stream: Stream, skipped: SkippedSamples, *plans: BatchPlan, split: str = "train") -> list[Any]:
    def list_global_batch(of: BatchPlan) -> NDArray[np.int64]:
        start = int(of.samples[0]) // 4 * 4
        return np.arange(start, start + 4)

    batches = SkippingBatches(stream, split, skipped)(plans, list_global_batch)
    return [(batch["samples"], batch["weight"].tolist()) for batch in batches]


def test_a_known_bad_sample_is_not_asked_for_again() -> None:
    stream, skipped = Stream(), SkippedSamples()
    assert run(stream, skipped, plan(0, 1), plan(2, 3)) == [([0, 3], [1, 0]), ([3, 3], [0, 1])]
    assert stream.asked == [[0, 1], [0, 2], [0, 3], [3, 3]]
    assert skipped.replaced_count == 2
    assert run(stream, skipped, plan(0, 1)) == [([0, 3], [1, 0])]
    assert stream.asked[4:] == [[0, 3]]
    assert skipped.replaced_count == 3
    assert sorted(skipped.errors) == [("train", 1), ("train", 2)]


def test_weights_of_the_plan_are_kept_and_not_written_to() -> None:
    padded = plan(5, 6, 7, weight=[1, 1, 0])
    assert run(Stream(), SkippedSamples(), padded) == [([5, 7, 7], [1, 0, 0])]
    assert padded.weight is not None
    assert padded.weight.tolist() == [1, 1, 0]


def test_splits_do_not_know_of_each_other_and_evaluation_is_not_counted() -> None:
    stream, skipped = Stream(), SkippedSamples()
    assert run(stream, skipped, plan(6, 7), split="val") == [([7, 7], [0, 1])]
    assert skipped.replaced_count == 0
    run(stream, skipped, plan(6, 7))
    assert sorted(skipped.errors) == [("train", 6), ("val", 6)]
    records, places = skipped.gather_over_ranks()
    assert ([record[:2] for record in records], places) == ([("train", "k6"), ("val", "k6")], 1)
    assert records[0].why == "torn"


def test_where_none_can_be_read_the_first_is_named() -> None:
    all_bad = SkippedSamples()
    for sample in range(8, 12):
        all_bad.record_bad_sample("train", damage(sample))
    with pytest.raises(MLScaleError, match="none of the 4 samples") as caught:
        run(Stream(), all_bad, plan(9))
    assert (caught.value.where, caught.value.why) == ("data.train", "the first: the sample k9 is bad: torn")


def test_the_first_alone_is_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = SkippedSamples()
    for sample in (5, 3):
        skipped.record_bad_sample("train", damage(sample))
    assert capsys.readouterr().err == "bad data  the sample k5 is bad: torn; it is replaced, and so are others\n"


@pytest.mark.parametrize(("count", "shown", "more"), [(1, 1, ""), (5, 5, ""), (6, 5, ", …"), (9, 5, ", …")])
def test_five_names_are_shown(count: int, shown: int, more: str) -> None:
    records = [BadRecord("train", f"n{number}", "torn") for number in range(count)]
    names = ", ".join(f"train n{number}" for number in range(shown))
    assert format_skipped_samples(records, 0) == f"bad data  {count} unreadable: {names}{more}"
    assert f"{count} unreadable, 2 places of training had weight 0: train n0" in format_skipped_samples(records, 2)
    assert format_skipped_samples([], 3) == "bad data  none"


@pytest.mark.parametrize(("count", "more"), [(1, ""), (3, ""), (4, ", …")])
def test_three_harmless_warnings_are_shown(count: int, more: str) -> None:
    line = describe_tolerated({f"n{number}": f"w{number}" for number in reversed(range(count))})
    shown = ", ".join(f"n{number} (w{number})" for number in range(min(3, count)))
    assert line == f"images    {count} decoded despite a harmless warning: {shown}{more}"


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_tell_each_other(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    def all_gather_object(every: list[Any], own: Any) -> None:
        every[:] = [own, *every[1:]]
        for rank in range(1, ranks):
            every[rank] = {f"of {rank}": "w"}

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    monkeypatch.setattr(dist, "all_gather_object", all_gather_object)
    assert gather_tolerated({"own": "v"}) == {"own": "v", **{f"of {rank}": "w" for rank in range(1, ranks)}}
