"""Digests are equal for equal bits, and differ where one bit does."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.train.checkpoint import tensor_digests as digests


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    assert digests.hash_tensor(tensor) == digests.hash_tensor(tensor.clone())
    assert digests.hash_tensor(tensor) == digests.hash_tensor(tensor.t().contiguous().t())  # whatever its layout
    other = tensor.clone()
    other[0, 0] = 1
    seen = {digests.hash_tensor(each) for each in (tensor, other, tensor.reshape(3, 2), tensor.double())}
    assert len(seen) == 4
    assert all(len(digest) == 2 * digests.BYTES for digest in seen)


def test_a_negative_zero_is_not_zero() -> None:
    assert digests.hash_tensor(torch.tensor(0.0)) != digests.hash_tensor(torch.tensor(-0.0))


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (1, 2),
        (True, 1.0),
        (0.1, 0.1 + 2**-50),
        ("a", "b"),
        ([1, 2], [2, 1]),
        ({"a": [1.0, torch.zeros(2)]}, {"a": [1.0, torch.ones(2)]}),
        ({"a": 1}, {"b": 1}),
        (np.arange(3), np.arange(3.0)),
        ({1, 2}, {1, 3}),
        (list(range(10_000)), list(range(10_001))),
        (torch.zeros(1 << 19), torch.zeros((1 << 19) + 1)),
    ],
)
def test_plain_values(value: Any, other: Any) -> None:
    assert digests.hash_value(value) != digests.hash_value(other)
    assert digests.hash_value(value) == digests.hash_value(value)


def test_numbers_stand_for_themselves() -> None:
    assert digests.hash_value(12) == 12
    assert digests.hash_value(0.5) == (0.5).hex()
    assert digests.hash_value(None) is None


def test_what_is_no_plain_value() -> None:
    for value in (print, object(), torch.nn.Linear(1, 1), np.array([object()])):
        assert digests.hash_value(value) is digests.NOTHING
    assert digests.hash_value([print]) == digests.hash_value([len])  # what an entry holds is looked at elsewhere


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: random.Random(1), lambda generator: generator.random()),
        (lambda: np.random.default_rng(1), lambda generator: generator.random()),
        (lambda: np.random.RandomState(1), lambda generator: generator.rand()),
        (lambda: torch.Generator().manual_seed(1), lambda generator: torch.rand(1, generator=generator)),
    ],
)
def test_generators(make: Any, draw: Any) -> None:
    one, other = make(), make()
    assert digests.hash_generator(one) == digests.hash_generator(other)
    draw(other)
    assert digests.hash_generator(one) != digests.hash_generator(other)
    draw(one)
    assert digests.hash_generator(one) == digests.hash_generator(other)


def test_other_objects_are_no_generators() -> None:
    assert digests.hash_generator(1) is None
    assert digests.hash_generator("random") is None


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_of_a_large_array_both_ends_count(dtype: Any) -> None:
    """64 KiB at each; one of a MiB is digested whole."""
    size = np.dtype(dtype).itemsize
    edge, count = (1 << 16) // size, (1 << 20) // size
    for length, seen in ((count, True), (count + 2, False)):
        array = np.zeros(length, dtype)
        before = digests.hash_value(array)
        for place, counts in (
            (0, True),
            (edge - 1, True),
            (edge, seen),
            (length - edge - 1, seen),
            (length - edge, True),
        ):
            other = array.copy()
            other[place] = 1
            assert (digests.hash_value(other) != before) == counts, place


def test_what_is_nested_too_deeply_is_known_by_its_type_alone() -> None:
    def nest(value: Any, depth: int) -> Any:
        return nest([value], depth - 1) if depth else value

    assert digests.hash_value(nest([1], 6)) != digests.hash_value(nest([2], 6))
    assert digests.hash_value(nest([1], 7)) == digests.hash_value(nest([2], 7)) != digests.hash_value(nest((1,), 7))


def test_integers_are_numbers_as_long_as_a_float64_has_them() -> None:
    assert [digests.hash_value(value) for value in (2**53 - 1, 1 - 2**53)] == [2**53 - 1, 1 - 2**53]
    assert all(isinstance(digests.hash_value(value), str) for value in (2**53, -(2**53)))


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(2).to_sparse(), torch.ones(2, device="meta"), torch.nn.LazyLinear(2).weight],
    ids=["sparse", "meta", "lazy"],
)
def test_a_tensor_without_bytes_of_its_own_is_digested_elsewhere(tensor: torch.Tensor) -> None:
    assert digests.hash_value(tensor) is digests.NOTHING


def test_one_number_in_the_middle_of_the_state_of_a_generator() -> None:
    """The text of a long array leaves its middle out."""
    generator, other = np.random.RandomState(1), np.random.RandomState(1)
    assert digests.hash_generator(generator) == digests.hash_generator(other)
    state: Any = other.get_state(legacy=False)
    state["state"]["key"][300] ^= 1
    other.set_state(state)
    assert digests.hash_generator(generator) != digests.hash_generator(other)


def test_a_chain_of_batches_changes_with_each_sample_and_not_with_the_layout() -> None:
    images = torch.zeros(32, 3, 64, 64)
    images[:, :, 20:40, 20:40] = torch.rand(32, 3, 20, 20)  # borders are alike
    batch: dict[str, Any] = {"image": images, "label": torch.arange(32), "key": [str(n) for n in range(32)]}
    same = {**batch, "image": images.contiguous(memory_format=torch.channels_last)}
    first = digests.chain_batch("", batch)
    assert digests.chain_batch("", same) == first
    assert digests.chain_batch(first, batch) != first
    spot = images.clone()
    spot[7, 1, 41, 17] += 1
    others = [
        {**batch, "image": images.roll(1, 0)},
        {**batch, "image": spot},
        {**batch, "label": batch["label"].roll(1)},
        {**batch, "key": [*batch["key"][1:], "0"]},
        [images, np.arange(32)],
        (images, SimpleNamespace(y=np.arange(32.0))),
        (images, np.array(["a", "b"])),
        None,
    ]
    conjugated = {**batch, "image": torch.zeros(4, dtype=torch.complex64).conj()}
    assert digests.chain_batch("", conjugated) != first  # of which torch gives no bytes: the others count
    assert len({first, *(digests.chain_batch("", other) for other in others)}) == 1 + len(others)
