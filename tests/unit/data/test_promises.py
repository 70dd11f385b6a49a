"""What every kind of data promises, under every policy: order, resume, the same global batches on any layout."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mlscale.data import (
    DatasetData,
    Promises,
    WebDataset,
)
from mlscale.data.array_data import MemoryData
from mlscale.data.builtin import image_sets
from mlscale.data.data_module import OrderedData
from mlscale.data.order.batch_plan import BatchLayout
from mlscale.errors import MLScaleError
from tests.unit.data.backends import (
    BATCH,
    POLICIES,
    Seen,
    cases,
    probe_once,
    rows,
    same,
    some_digits,
    webdataset,
    write_weights,
)
from tests.unit.data.conftest import picture, write_tar

# (ranks, forward passes of a step): `test_world_sizes` has one pass on two, four and eight ranks.
LAYOUTS = [(3, 1), (2, 3)]


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once: what is bundled comes from scikit-learn and Debian."""
    return tmp_path_factory.mktemp("promises")


@pytest.fixture
def make(request: pytest.FixtureRequest, cached: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OrderedData]:
    """A new data module of the case, as another process would build it."""
    backend, policy = request.param
    monkeypatch.setenv("MLSCALE_CACHE", str(cached / "cache"))
    monkeypatch.setattr(image_sets, "split_digits", some_digits)
    probe_once(monkeypatch)
    choices = dict(POLICIES[policy])

    def build(**changes: Any) -> OrderedData:
        folder = cached / backend.__name__
        if choices.get("sampling") == "weighted":
            choices["weights"] = str(write_weights(backend(folder), cached / f"{backend.__name__}.csv"))
        data: OrderedData = backend(folder, **{**choices, **changes})
        data.setup("fit")
        return data

    return build


@pytest.fixture
def whole(request: pytest.FixtureRequest, make: Callable[..., OrderedData]) -> Seen:
    """Two epochs of one process, read once for all tests of a case: `test_order` shows that they repeat."""
    backend, policy = request.node.callspec.params["make"]
    case = (backend.__name__, policy)
    if case not in _WHOLE:
        _WHOLE[case] = epochs(make(), 2)
    return _WHOLE[case]


_WHOLE: dict[tuple[str, str], Seen] = {}


def on(data: OrderedData, layout: BatchLayout, monkeypatch: pytest.MonkeyPatch) -> OrderedData:
    """The data as a rank of a layout has it; the layout comes from a trainer otherwise."""
    monkeypatch.setattr(data, "_build_layout", lambda: layout)
    return data


def epochs(data: OrderedData, count: int) -> Seen:
    loader = data.train_dataloader()
    return [rows([batch]) for _ in range(count) for batch in loader]


@pytest.mark.parametrize("make", [*cases()], indirect=True)
class TestPromises:
    def test_order(self, make: Callable[..., OrderedData]) -> None:
        """The same to the bit for the same seed, whatever the workers; another for another seed and epoch."""
        data = make()
        assert data.promises == Promises(order=True, resume=True, elastic=True)
        first = epochs(data, 2)
        workers = {} if isinstance(data, MemoryData) else {"workers": 0 if isinstance(data, DatasetData) else 3}
        assert same(first, epochs(make(**workers), 2))
        half = len(first) // 2
        assert [keys for keys, *_ in first[:half]] != [keys for keys, *_ in first[half:]]
        assert [keys for keys, *_ in first] != [keys for keys, *_ in epochs(make(seed=1), 2)]

    def test_resume(self, make: Callable[..., OrderedData], whole: Seen) -> None:
        """From any batch, by a state of less than a kilobyte."""
        data, states = make(), list[dict[str, Any]]()
        loader = data.train_dataloader()
        while len(states) < len(whole):
            for _ in loader:
                states.append(data.state_dict())
                assert max(len(json.dumps(states[-1])), len(pickle.dumps(states[-1]))) < 1024
        for stop, state in enumerate(states[: len(whole) - 1], 1):
            resumed = make()
            resumed.load_state_dict(json.loads(json.dumps(state)))
            rest: Seen = []
            while len(rest) < len(whole) - stop:
                rest += epochs(resumed, 1)
            assert same(rest, whole[stop:])

    @pytest.mark.parametrize(("ranks", "passes"), LAYOUTS)
    def test_elastic(
        self, make: Callable[..., OrderedData], whole: Seen, monkeypatch: pytest.MonkeyPatch, ranks: int, passes: int
    ) -> None:
        """Put together, what ranks and forward passes see is the batch of one process, to the bit."""
        layouts = [BatchLayout(BATCH, ranks, rank, passes) for rank in range(ranks)]
        loaders = [on(make(), layout, monkeypatch).train_dataloader() for layout in layouts]
        seen: Seen = []
        for _ in range(2):
            for micro in batched(zip(*loaders, strict=True), passes):
                seen.append(rows([part for parts in micro for part in parts]))
        assert same(seen, whole)

    def test_from_two_ranks_to_one_and_back(
        self, make: Callable[..., OrderedData], whole: Seen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state, seen = make().state_dict(), list[list[str]]()
        for number in range(len(whole)):
            ranks = 1 + number % 2
            parts = []
            for rank in range(ranks):
                data = on(make(), BatchLayout(BATCH, ranks, rank), monkeypatch)
                data.load_state_dict(state)
                parts.append(next(iter(data.train_dataloader())))
                after = data.state_dict()
            state = after
            seen.append(rows(parts)[0])
        assert seen == [keys for keys, *_ in whole]


def batched(items: Iterator[Any], count: int) -> Iterator[list[Any]]:
    while part := list(islice(items, count)):
        yield part


def test_a_checkpoint_of_another_policy_is_refused(tmp_path: Path) -> None:
    state = webdataset(tmp_path, sampling="balanced").state_dict()
    data = webdataset(tmp_path)
    data.load_state_dict(state)
    with pytest.raises(MLScaleError, match="another order") as caught:
        data.train_dataloader()
    assert caught.value.where == "data.sampling"
    assert "its policy is balanced" in caught.value.why


def test_a_weighted_run_is_resumed_with_its_weights_alone(tmp_path: Path) -> None:
    weights, keys = tmp_path / "w.csv", set[str]()
    for batch in webdataset(tmp_path, last="pad").train_dataloader():
        keys |= set(batch["key"])
    weights.write_text("".join(f"{key},{1 + number % 3}\n" for number, key in enumerate(sorted(keys))))
    choices = {"sampling": "weighted", "weights": str(weights), "epoch_samples": 4 * BATCH}
    first = webdataset(tmp_path, **choices)
    whole = [batch["key"] for batch in first.train_dataloader()]
    state = {**first.state_dict(), "epoch": 0, "position": 2 * BATCH}
    again = webdataset(tmp_path, **choices)
    again.load_state_dict(state)
    assert [batch["key"] for batch in again.train_dataloader()] == whole[2:]
    for changed in (
        {"epoch_samples": 5 * BATCH},
        {"weights": _another(weights)},
        {"sampling": "balanced", "weights": None},
    ):
        other = webdataset(tmp_path, **{**choices, **changed})
        other.load_state_dict(state)
        with pytest.raises(MLScaleError, match="another order") as caught:
            other.train_dataloader()
        assert caught.value.where == "data.sampling"
        assert "its policy is weighted" in caught.value.why


def _another(weights: Path) -> str:
    """The same keys, one of them with another weight."""
    path = weights.with_name("another.csv")
    path.write_text(weights.read_text().replace(",1\n", ",2\n", 1))
    return str(path)


def test_a_checkpoint_from_before_policies_goes_on(tmp_path: Path) -> None:
    data = webdataset(tmp_path)
    state = data.state_dict()
    assert state.pop("policy") == "shuffle"
    data.load_state_dict(state)
    assert len(list(data.train_dataloader())) == 4


def test_weights_from_members(tmp_path: Path) -> None:
    """A member of each sample holds its weight."""
    members = [
        member
        for i in range(30)
        for member in (
            (f"{i:02}.png", picture(i)),
            (f"{i:02}.cls", str(i % 2).encode()),
            (f"{i:02}.weight", str(i % 3).encode()),
        )
    ]
    shard = write_tar(tmp_path / "0.tar", members)
    data = WebDataset(shard, shard, batch_size=30, sampling="weighted", weights="weight", epoch_samples=300)
    keys = [key for batch in data.train_dataloader() for key in batch["key"]]
    counts = [keys.count(f"0.tar/{i:02}") for i in range(30)]
    assert counts == [10 * (i % 3) for i in range(30)]
