"""What the loader promises: which sample comes when and how often, and how a run goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.data.order.batch_plan import Batch, BatchLayout, BatchPlan
from mlscale.data.order.loader import EvalLoader, LoaderProgress, TrainLoader
from mlscale.data.order.sample_order import ShuffledSampler
from mlscale.errors import MLScaleError

N = 101
LAYOUTS = [(1, 1), (2, 1), (3, 1), (8, 1), (1, 2), (2, 4), (3, 2)]


def echo(plans: Iterable[BatchPlan], list_global_batch: object = None) -> Iterator[Batch]:
    for plan in plans:
        weight = None if plan.weight is None else plan.weight.tolist()
        yield {"samples": plan.samples.tolist(), "at": (plan.epoch, plan.positions.tolist()), "weight": weight}


def train(layout: BatchLayout, progress: LoaderProgress | None = None, **kwargs: object) -> TrainLoader:
    start = progress or LoaderProgress()
    return TrainLoader(echo, ShuffledSampler(N, seed=0, version="v"), layout, progress=start, **kwargs)  # type: ignore[arg-type]


def global_batches(world: int, accumulate: int, epochs: int = 2) -> list[set[int]]:
    """The samples of each optimizer step, over all ranks and forward passes."""
    ranks = [train(BatchLayout(24, world, rank, accumulate)) for rank in range(world)]
    steps: list[set[int]] = []
    for _ in range(epochs):
        per_rank = [[batch["samples"] for batch in loader] for loader in ranks]
        assert {len(batches) for batches in per_rank} == {len(ranks[0])}
        for first in range(0, len(per_rank[0]), accumulate):
            parts = [part for batches in per_rank for part in batches[first : first + accumulate]]
            assert {len(part) for part in parts} == {24 // world // accumulate}
            steps.append({sample for part in parts for sample in part})
    return steps


@pytest.mark.parametrize(("world", "accumulate"), LAYOUTS)
def test_the_same_global_batches_whatever_the_layout(world: int, accumulate: int) -> None:
    assert global_batches(world, accumulate) == global_batches(1, 1)


@pytest.mark.parametrize(("world", "accumulate"), LAYOUTS)
def test_training_takes_each_sample_at_most_once_an_epoch(world: int, accumulate: int) -> None:
    steps = global_batches(world, accumulate, epochs=1)
    counts = Counter(sample for step in steps for sample in step)
    assert len(steps) == 4
    assert len(counts) == 96
    assert set(counts.values()) == {1}
    assert train(BatchLayout(24, world, 0, accumulate)).dropped == 5


def test_what_is_left_out_changes() -> None:
    loader = train(BatchLayout(24))
    left_out = [frozenset(range(N)) - {s for batch in loader for s in batch["samples"]} for _ in range(5)]
    assert len(set(left_out)) == 5


@pytest.mark.parametrize(("world", "accumulate"), LAYOUTS)
@pytest.mark.parametrize("samples", [1, 23, 24, 25, N])
def test_evaluation_takes_each_sample_exactly_once(world: int, accumulate: int, samples: int) -> None:
    loaders = [EvalLoader(echo, samples, BatchLayout(24, world, rank, accumulate)) for rank in range(world)]
    batches = [list(loader) for loader in loaders]
    assert {len(b) for b in batches} == {len(loaders[0])}
    every = [batch for rank in batches for batch in rank]
    assert all(batch["samples"] for batch in every)
    counts = Counter(s for batch in every if set(batch["weight"]) == {1} for s in batch["samples"])
    assert counts == Counter(range(samples))
    assert all(len(batch["samples"]) == 1 for batch in every if batch["weight"] == [0])


@pytest.mark.parametrize("stop", range(9))
def test_going_on_from_any_batch_is_going_on_from_there(stop: int) -> None:
    """State is read while a batch is at work, as a checkpoint does, and the loader is abandoned in mid-epoch."""
    whole = train(BatchLayout(24))
    expected = [batch["at"] for _ in range(3) for batch in whole]
    loader, seen = train(BatchLayout(24)), []
    iterator = iter(loader)
    for _ in range(stop):
        batch = next(iterator, None)
        if batch is None:
            iterator = iter(loader)
            batch = next(iterator)
        seen.append(batch["at"])
    resumed = train(BatchLayout(24), LoaderProgress(**loader.progress.state_dict()))
    while len(seen) < len(expected):
        seen += [batch["at"] for batch in resumed]
    assert seen == expected


def test_going_on_with_other_ranks_gives_the_same_global_batches() -> None:
    expected = global_batches(1, 1)
    pair = [train(BatchLayout(24, 2, rank)) for rank in range(2)]
    seen = []
    iterators = [iter(loader) for loader in pair]
    for _ in range(2):
        seen.append({s for iterator in iterators for s in next(iterator)["samples"]})
    alone = train(BatchLayout(24), LoaderProgress(**pair[0].progress.state_dict()))
    while len(seen) < len(expected):
        seen += [set(batch["samples"]) for batch in alone]
    assert seen == expected


def test_a_limit_makes_shorter_epochs_of_other_samples() -> None:
    loader = train(BatchLayout(24, 1, 0, 2), limit=3)
    assert len(loader) == 8
    epochs = [[batch["at"][0] for batch in loader] for _ in range(2)]
    assert epochs == [[0, 0, 0], [1, 1, 1]]


def test_fixed_repeats_the_first_batches() -> None:
    loader = train(BatchLayout(24), limit=1, fixed=True)
    assert [[b["at"] for b in loader] for _ in range(3)] == [[b["at"] for b in train(BatchLayout(24), limit=1)]] * 3


@pytest.mark.parametrize(
    ("layout", "what", "fix"),
    [
        (BatchLayout(64, 3), "a batch of 64 does not divide over 3", "data.batch_size=63\ndata.batch_size=66"),
        (BatchLayout(2, 8), "a batch of 2 does not divide over 8", "data.batch_size=8"),
        (BatchLayout(10, 2, 0, 2), "2 processes and 2 forward passes", "data.batch_size=8\ndata.batch_size=12"),
        (
            BatchLayout(128, 2),
            "a batch of 128 is larger than the training data, 101",
            "data.batch_size=100\ndata.last=pad",
        ),
    ],
)
def test_a_batch_that_cannot_be_laid_out(layout: BatchLayout, what: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        layout.check_batch_size(N)
    assert what in caught.value.what
    assert caught.value.fix == fix
    assert caught.value.where == "data.batch_size"


@pytest.mark.parametrize(("size", "samples"), [(1, 1), (2, 2), (101, 101), (1, None)])
def test_a_batch_may_be_as_small_as_one_and_as_large_as_the_data(size: int, samples: int | None) -> None:
    BatchLayout(size).check_batch_size(samples)
    BatchLayout(2 * size, 2).check_batch_size(samples and 2 * samples)


@pytest.mark.parametrize(("size", "parts", "fix"), [(0, 1, "1"), (0, 2, "2"), (1, 2, "2")])
def test_a_batch_of_nothing_is_refused(size: int, parts: int, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        BatchLayout(size, parts).check_batch_size()
    assert caught.value.fix == f"data.batch_size={fix}"


def test_fewer_samples_than_parts_can_only_be_padded() -> None:
    with pytest.raises(MLScaleError) as caught:
        BatchLayout(8, 8).check_batch_size(7)
    assert caught.value.fix == "data.last=pad"


@pytest.mark.parametrize("rank", [0, 1])
def test_the_global_batch_of_an_evaluation_is_one_pass_of_all_ranks(rank: int) -> None:
    passes: list[list[int]] = []

    def batches(
        plans: Iterable[BatchPlan], list_global_batch: Callable[[BatchPlan], NDArray[np.int64]]
    ) -> Iterator[Batch]:
        for plan in plans:
            passes.append(list_global_batch(plan).tolist())
            assert plan.epoch == 0
            assert plan.positions.tolist() == plan.samples.tolist()
            yield {"samples": plan.samples.tolist(), "weight": plan.weight}

    seen = list(EvalLoader(batches, 9, BatchLayout(8, 2, rank, 2)))
    assert passes == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    of_rank = [[0, 1], [4, 5], [8]] if rank == 0 else [[2, 3], [6, 7], [8]]
    assert [batch["samples"] for batch in seen] == of_rank
    assert [batch["weight"].tolist() for batch in seen] == [[1, 1], [1, 1], [1 - rank]]


ORDER = ShuffledSampler(N, seed=0, version="v")


def padded(epoch: int, size: int, samples: int = N) -> list[tuple[int, int, float]]:
    """What `last=pad` is defined as: each place, its sample (from the epoch's start again past its end), its weight."""
    order = ShuffledSampler(samples, seed=0, version="v").get_epoch_order(epoch)(0, samples).tolist()
    places = range(-(-samples // size) * size)
    return [(place, order[place % samples], 1.0 if place < samples else 0.0) for place in places]


def seen(loader: TrainLoader) -> list[list[tuple[int, int, float]]]:
    """The same of each batch that a loader gives until its epoch ends."""
    return [list(zip(batch["at"][1], batch["samples"], batch["weight"], strict=True)) for batch in loader]


@pytest.mark.parametrize(("world", "accumulate"), LAYOUTS)
def test_pad_fills_the_batch_across_the_epochs_end_up_by_its_first_samples(world: int, accumulate: int) -> None:
    ranks = [train(BatchLayout(24, world, rank, accumulate), pad=True) for rank in range(world)]
    assert [loader.dropped for loader in ranks] == [0] * world
    for epoch in range(3):
        per_rank = [seen(loader) for loader in ranks]
        assert [len(batches) for batches in per_rank] == [5 * accumulate] * world
        found = [row for number in range(5 * accumulate) for batches in per_rank for row in batches[number]]
        assert found == padded(epoch, 24)
        assert sum(weight for *_, weight in found) == N
        assert [loader.progress for loader in ranks] == [LoaderProgress(epoch + 1, 0)] * world


@pytest.mark.parametrize("samples", [1, 5, 23, 24, 25, 47, 48])
def test_pad_of_data_that_fills_less_than_a_batch_goes_round_more_than_once(samples: int) -> None:
    sampling = ShuffledSampler(samples, seed=0, version="v")
    loader = TrainLoader(echo, sampling, BatchLayout(24), progress=LoaderProgress(), pad=True)
    for epoch in range(2):
        assert [row for batch in seen(loader) for row in batch] == padded(epoch, 24, samples)


@pytest.mark.parametrize("stop", range(1, 11))
def test_pad_is_resumed_from_any_batch(stop: int) -> None:
    """Before the batch that straddles the epoch's end, from it, and after it."""
    whole, first = train(BatchLayout(24, 1, 0, 2), pad=True), train(BatchLayout(24, 1, 0, 2), pad=True)
    both = seen(whole) + seen(whole)
    assert len(both) == 20
    given = []
    for batch in first:
        given.append(batch)
        if len(given) == stop:
            break
    state = first.progress.state_dict()
    assert state == ({"epoch": 1, "position": 0} if stop == 10 else {"epoch": 0, "position": 12 * stop})
    resumed = train(BatchLayout(24, 1, 0, 2), LoaderProgress(**state), pad=True)
    rest = seen(resumed) + (seen(resumed) if stop < 10 else [])
    assert rest == both[stop:]


def test_a_bad_sample_of_the_batch_across_the_end_is_replaced_out_of_the_same_global_batch() -> None:
    reported: list[list[int]] = []

    def asking(
        plans: Iterable[BatchPlan], list_global_batch: Callable[[BatchPlan], NDArray[np.int64]]
    ) -> Iterator[Batch]:
        for plan in plans:
            reported.append(list_global_batch(plan).tolist())
            yield {}

    loader = TrainLoader(asking, ORDER, BatchLayout(24, 2, 1, 2), progress=LoaderProgress(), pad=True)
    list(loader)
    places = [sample for _, sample, _ in padded(0, 24)]
    assert reported == [places[number // 2 * 24 : number // 2 * 24 + 24] for number in range(10)]


def test_without_pad_nothing_has_a_weight_and_the_rest_is_left_out() -> None:
    loader = train(BatchLayout(24))
    assert [batch["weight"] for batch in loader] == [None] * 4
    assert (loader.dropped, loader.progress) == (5, LoaderProgress(1, 0))
