"""Randomness is a function of (seed, epoch, step, rank)."""

import torch
from torch import nn

from mlscale.train.callbacks import StepSeed
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
