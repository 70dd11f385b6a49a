"""A part of the model is frozen on two ranks: what stands still does on both, and what begins to move is summed up."""

from pathlib import Path

import pytest
import torch

from mlscale.cli import main
from tests.conftest import runs_in

WORDS = (
    "+recipe=resnet", "model=mlp", "model.hidden=[16]", "snapshot=false", "trainer.max_epochs=2",
    "optimizer.lr=0.05", "++trainer.limit_train_batches=4", "callbacks=[default,freeze]", "logger=none",
)  # fmt: skip


def weights(folder: Path, name: str, *words: str) -> dict[str, torch.Tensor]:
    assert main([*WORDS, *words, f"runs_dir={name}"]) == 0
    (run,) = runs_in(folder / name)
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return state


@pytest.mark.slow
def test_two_ranks_train_what_one_process_does(folder: Path) -> None:
    frozen = [
        weights(folder, f"still-{n}", f"trainer.devices={n}", "callbacks.freeze.until_epoch=null") for n in (1, 2)
    ]
    moved = [weights(folder, f"moved-{n}", f"trainer.devices={n}") for n in (1, 2)]
    first, head = "model.layers.1.weight", "model.layers.3.weight"
    assert torch.equal(frozen[0][first], frozen[1][first]), "as it was drawn from the same seed, though lazily"
    assert not torch.equal(frozen[0][first], moved[0][first])
    for one, two in (frozen, moved):
        assert torch.allclose(one[head], two[head], atol=1e-4)
        assert torch.allclose(one[first], two[first], atol=1e-4)
