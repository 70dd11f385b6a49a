"""The states of the global generators are taken and set again, of CUDA too where it is the device."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.train.checkpoint.random_states import (
    collect_generator_states,
    mix_seeds,
    restore_generator_states,
    seed_global_generators,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


def draw() -> list[float]:
    """Return numbers of each generator; the normal ones are drawn in pairs, of which the second is kept for later."""
    return [
        *torch.rand(3).tolist(), *torch.randn(3).tolist(),
        *(random.random() for _ in range(3)), random.gauss(0, 1),
        *np.random.rand(3).tolist(), float(np.random.randn()),
    ]  # fmt: skip


@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_the_same_numbers_are_drawn_again_after_a_file(tmp_path: Path, drawn: int) -> None:
    seed_global_generators(drawn)
    for _ in range(drawn):
        draw()
    torch.save(collect_generator_states(CPU), tmp_path / "states.pt")
    expected = [draw(), draw()]
    seed_global_generators(99)
    assert [draw(), draw()] != expected
    restore_generator_states(torch.load(tmp_path / "states.pt", weights_only=True), CPU)
    assert [draw(), draw()] == expected


def test_the_parts_have_names_that_earlier_checkpoints_have() -> None:
    states = collect_generator_states(CPU)
    assert {name: sorted(part) for name, part in states.items() if name != "torch"} == {
        "python": ["gauss", "version", "words"], "numpy": ["cached", "has_gauss", "keys", "name", "position"],
    }  # fmt: skip
    assert sorted(states) == ["numpy", "python", "torch"]


def test_a_device_of_cuda_has_a_state_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[torch.device, Any] = {CUDA: torch.tensor([1, 2])}
    monkeypatch.setattr(torch.cuda, "get_rng_state", held.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: held.update({device: state}))
    states = collect_generator_states(CUDA)
    assert states["cuda"].tolist() == [1, 2]
    held.clear()
    restore_generator_states(states, CPU)
    restore_generator_states({name: state for name, state in states.items() if name != "cuda"}, CUDA)
    assert held == {}
    restore_generator_states(states, CUDA)
    assert held[CUDA].tolist() == [1, 2]


def test_a_seed_sets_all_three_and_each_of_its_values_counts() -> None:
    seed_global_generators(1, 2)
    number = mix_seeds(1, 2)
    assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(number))
    assert random.random() == random.Random(number).random()
    assert np.random.rand() == np.random.RandomState(number % 2**32).rand()
