"""Divergence: the first bad step is named, and the last good checkpoint survives."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint

from mlscale.errors import Exit, MLScaleError
from mlscale.train.callbacks import NonFinite, nonfinite
from tests.unit.fitting import At, batches, classifier, fit, trainer


def poisoned(count: int, at: int) -> list[dict[str, Any]]:
    data = batches(count)
    data[at]["x"][1, 0] = float("nan")
    return data


def test_step_and_samples_are_named() -> None:
    with pytest.raises(MLScaleError, match=r"the loss is nan in epoch 0, batch 3 \(optimizer step 4\)") as caught:
        fit(trainer(callbacks=[NonFinite()]), classifier(), poisoned(6, at=3))
    assert caught.value.exit is Exit.DIVERGED
    assert "shard/3-0, shard/3-1" in caught.value.why


def test_batches_without_keys_are_fine() -> None:
    data = [(batch["x"], batch["y"]) for batch in poisoned(2, at=1)]
    with pytest.raises(MLScaleError, match="batch 1") as caught:
        fit(trainer(callbacks=[NonFinite()]), classifier(), data)
    assert caught.value.why == "no checkpoint had been saved before"


def test_many_samples_are_counted_not_listed() -> None:
    made = trainer()
    made.strategy.connect(classifier())
    error = nonfinite._build_nonfinite_error("x", made, [str(n) for n in range(100)])
    assert "and 92 more" in error.why
    assert error.fix.startswith("optimizer.lr=<a smaller one>\n")


def test_a_module_with_an_optimizer_of_its_own_has_no_key_for_its_rate() -> None:
    class Own(LightningModule):
        def configure_optimizers(self) -> None: ...

    made = trainer()
    made.strategy.connect(Own())
    assert nonfinite._build_nonfinite_error("x", made).fix.endswith("a smaller learning rate in configure_optimizers")


def weights(path: Path) -> torch.Tensor:
    state = torch.load(path, weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for name, value in state.items()])


@pytest.mark.parametrize("late", [False, True], ids=["host", "device"])
def test_a_later_checkpoint_never_overwrites_the_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    if late:  # an accelerator's losses are not looked at when they appear
        monkeypatch.setattr(nonfinite, "isfinite", lambda loss: False)
        monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    every_step = ModelCheckpoint(dirpath=tmp_path, filename="last", every_n_train_steps=1, enable_version_counter=False)
    run = trainer(callbacks=[NonFinite(), every_step], enable_checkpointing=True, log_every_n_steps=50)
    with pytest.raises(MLScaleError, match="batch 2") as caught:
        fit(run, classifier(), poisoned(5, at=2))
    assert "shard/2-0" in caught.value.why
    assert caught.value.why.endswith("; the last good checkpoint is kept: last.ckpt")
    assert torch.isfinite(weights(tmp_path / "last.ckpt")).all()


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    def break_weights(run: Any, module: Any, index: int) -> None:
        if index == 1:
            with torch.no_grad():
                module.model.bias[0] = float("inf")

    every_step = ModelCheckpoint(dirpath=tmp_path, filename="last", every_n_train_steps=1, enable_version_counter=False)
    run = trainer(callbacks=[At(break_weights), NonFinite(), every_step], enable_checkpointing=True)
    with pytest.raises(MLScaleError, match="weights are not finite after optimizer step 2"):
        fit(run, classifier(), batches(4))
    assert torch.isfinite(weights(tmp_path / "last.ckpt")).all()
