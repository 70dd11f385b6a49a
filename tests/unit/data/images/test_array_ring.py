"""Arrays are given out again only when nobody can see them any more."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.data.images.array_ring import ArrayRing

SHAPE, FLOAT = (4, 3, 224, 224), np.dtype(np.float32)


def address(array: NDArray[Any]) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def test_an_array_that_nobody_holds_is_used_again() -> None:
    ring = ArrayRing(keep=2)
    first = ring.take_array(SHAPE, FLOAT)
    place = address(first)
    second = ring.take_array(SHAPE, FLOAT)
    assert address(second) != place
    del first
    assert address(ring.take_array(SHAPE, FLOAT)) == place
    shorter = ring.take_array((2, *SHAPE[1:]), FLOAT)
    assert (address(shorter), shorter.shape) == (place, (2, 3, 224, 224))


def test_whatever_shares_its_memory_holds_it() -> None:
    def keepers(array: NDArray[Any]) -> list[object]:
        tensor = torch.from_numpy(array)
        graph = (torch.ones(3, 224, 224, requires_grad=True) * tensor[1]).sum()
        return [array[1:, :, ::2], tensor[0], tensor.numpy()[..., 0], tensor.view(-1).untyped_storage(), graph]

    for number in range(5):
        ring = ArrayRing(keep=1)
        array = ring.take_array(SHAPE, FLOAT)
        place = address(array)
        array[...] = 7
        kept = keepers(array)[number]
        del array
        assert address(ring.take_array(SHAPE, FLOAT)) != place, number
        del kept
        assert address(ring.take_array(SHAPE, FLOAT)) == place, number


def test_who_keeps_everything_gets_new_arrays_and_the_ring_does_not_grow() -> None:
    ring = ArrayRing(keep=3)
    kept = [ring.take_array(SHAPE, FLOAT) for _ in range(8)]
    assert len({address(array) for array in kept}) == 8
    assert len(ring._arrays) == 3
    del kept
    ring.take_array(SHAPE, np.dtype(np.uint8))
    ring.take_array((6, *SHAPE[1:]), FLOAT)
    assert len(ring._arrays) == 3
    assert ring.take_array((6, *SHAPE[1:]), FLOAT).shape[0] == 6


def test_small_arrays_are_left_to_the_allocator() -> None:
    ring = ArrayRing(keep=3)
    ring.take_array((64, 1, 8, 8), FLOAT)
    assert ring._arrays == []


def test_threads_never_get_the_same_array() -> None:
    ring = ArrayRing(keep=4)
    mixed: list[int] = []

    def use(number: int) -> None:
        for _ in range(200):
            array = ring.take_array((2, 3, 256, 256), FLOAT)
            array[:, :, ::64] = number
            if not (array[:, :, ::64] == number).all():
                mixed.append(number)
            del array

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mixed == []
