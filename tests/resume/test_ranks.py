"""Three ranks go on to the bit, though a ring adds their gradients up in an order that follows from buckets."""

from pathlib import Path

import pytest
import torch

from mlscale.cli import main
from tests.conftest import runs_in

WIDE = ("model=mlp", "model.hidden=[600,600]")  # more than torch's first bucket holds
WORDS = ("+recipe=resnet", *WIDE, "snapshot=false", "trainer.devices=3", "data.batch_size=48", "trainer.max_epochs=1")
SAVES = ("++trainer.max_steps=6", "callbacks.checkpoint.every_n_steps=3", "callbacks.checkpoint.keep=-1")


@pytest.mark.slow
def test_three_ranks_go_on_to_the_bit(folder: Path) -> None:
    assert main([*WORDS, *SAVES]) == 0
    (run,) = runs_in(folder)
    saved = run / "checkpoints"
    whole = torch.load(saved / "last.ckpt", weights_only=True)["state_dict"]
    for path in saved.glob("*.ckpt"):
        if path.name != "step=3.ckpt":
            path.unlink()
    (run / "manifest.json").unlink()  # as if it had been killed after its third step
    assert main(["runs", "resume", "last"]) == 0
    again = torch.load(saved / "last.ckpt", weights_only=True)["state_dict"]
    assert again.keys() == whole.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sharded_ranks_go_on_to_the_bit(folder: Path, precision: str) -> None:
    """With an average of the weights, clipping, BatchNorm, accumulation and activations that are computed again."""
    words = ["+recipe=resnet", "snapshot=false", "trainer.devices=2", "strategy=fsdp", f"precision={precision}"]
    words += ["trainer.max_epochs=1", "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.5"]
    words += ["activation_checkpointing=true", "optimizer=adamw", "callbacks=[default,ema]", "callbacks.ema.every=1"]
    assert main([*words, *SAVES]) == 0
    (run,) = runs_in(folder)
    saved = run / "checkpoints"
    whole = torch.load(saved / "last.ckpt", weights_only=True)
    for path in saved.glob("*.ckpt"):
        if path.name != "step=3.ckpt":
            path.unlink()
    (run / "manifest.json").unlink()
    assert main(["runs", "resume", "last"]) == 0
    again = torch.load(saved / "last.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        assert list(again[part]) == list(whole[part])
        assert all(torch.equal(value, again[part][name]) for name, value in whole[part].items())
