"""A metric that nobody logs."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from mlscale.train.lightning.missing_metric import build_unlogged_error, explain_unlogged_metric


class Line(LightningModule):
    def __init__(self, plateau: bool) -> None:
        super().__init__()
        self.layer, self.plateau = torch.nn.Linear(1, 1), plateau

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = self.layer(batch).mean()
        self.log("train/loss", loss)
        return loss  # type: ignore[no-any-return]

    def configure_optimizers(self) -> object:  # type: ignore[override]
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        if not self.plateau:
            return optimizer
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/los"}}


@pytest.mark.parametrize("who", ["checkpoint", "early_stopping", "plateau"])
def test_what_lightning_says_is_reported(who: str, tmp_path: object) -> None:
    callbacks: list[Callback] = []
    if who == "checkpoint":
        callbacks.append(ModelCheckpoint(dirpath=str(tmp_path), monitor="val/los"))
    if who == "early_stopping":
        callbacks.append(EarlyStopping("val/los", check_on_train_epoch_end=True))
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=callbacks, enable_checkpointing=who == "checkpoint",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loader: DataLoader[torch.Tensor] = DataLoader(torch.ones(2, 1), 1)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="val/los") as caught:
        trainer.fit(Line(who == "plateau"), loader)
    reported = explain_unlogged_metric(caught.value, "val/los", ["train/loss", "val/loss"])
    assert reported is not None
    assert reported.what == "no 'val/los' was logged"
    assert reported.where == "metric=val/los"
    assert reported.why == "logged were: train/loss, val/loss"
    assert reported.fix.startswith("metric=val/loss mode=min, or self.log(")


def test_a_name_with_a_blank_is_quoted_for_the_shell() -> None:
    assert build_unlogged_error("val/los", "metric=val/los", ["val los"]).fix.startswith("'metric=val los' mode=")


def test_other_errors_are_others() -> None:
    assert explain_unlogged_metric(RuntimeError("odd"), "val/loss", []) is None
