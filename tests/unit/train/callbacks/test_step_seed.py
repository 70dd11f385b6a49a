"""Randomness is a function of (seed, epoch, step, rank)."""

from itertools import product

import torch
from torch import nn

from mlscale.train.callbacks import StepSeed
from mlscale.train.callbacks.step_seed import mix_seeds
from tests.unit.fitting import At, batches, classifier, fit, trainer


def draws(seed: int, disturb: bool = False) -> list[float]:
    seen: list[float] = []

    def note(run: object, module: object, index: int) -> None:
        seen.append(torch.rand(()).item())
        if disturb:
            torch.rand(7)

    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))
    fit(trainer(callbacks=[StepSeed(seed), At(note)], max_epochs=2), classifier(model=model), batches(3))
    return seen


def test_what_happened_before_a_step_does_not_matter() -> None:
    assert draws(0) == draws(0, disturb=True)
    assert len(set(draws(0))) == 6
    assert not set(draws(0)) & set(draws(1))


def test_mix_is_a_seed_and_has_no_twins() -> None:
    values = [mix_seeds(*parts) for parts in product(range(4), range(4), range(40), range(4))]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 2**63 for value in values)
    assert mix_seeds(0, 1) != mix_seeds(1, 0)


def test_mix_is_splitmix64() -> None:
    assert mix_seeds(0) == 0xE220A8397B1DCDAF >> 1  # the first number of the reference implementation from state 0
