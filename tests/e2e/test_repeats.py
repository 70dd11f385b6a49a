"""The same seed gives the same weights to the bit, in one process and in two; another seed gives others."""

from pathlib import Path

import pytest
import torch

from mlscale import commands


def weights(*words: str) -> dict[str, torch.Tensor]:
    # Three steps and two epochs: augmentation, order, schedule and batch norm all take part.
    limits = ["trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1"]
    result = commands.run_command("train", ["recipe=resnet", "snapshot=false", "logger=none", *limits, *words])
    assert result.metrics["steps"] == 6
    path = Path(result.artifacts["run"], "checkpoints/last.ckpt")
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_seed_repeats_to_the_bit(folder: Path, devices: int) -> None:
    first, second, other = (weights(f"trainer.devices={devices}", f"seed={seed}") for seed in (5, 5, 6))
    assert len(first) > 20
    assert first.keys() == second.keys() == other.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    learned = [name for name in first if name.endswith("weight") and first[name].dim() > 1]
    assert learned
    assert not any(torch.equal(first[name], other[name]) for name in learned)
