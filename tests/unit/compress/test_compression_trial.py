"""What would end the compression of a trained model is found before the first step, and the trial changes no run."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from mlscale.compress import int8 as compression_trial
from mlscale.compress.int8 import Int8
from mlscale.data import Digits
from mlscale.errors import MLScaleError
from mlscale.task_types.classification_type import ClassificationType
from mlscale.tasks import ResNet
from tests.unit.compress.conftest import Attention, classifier


class Embedding(LightningModule):
    """A user's module without a stated type: a vector for each row, which is not a class."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.steps = 0

    def forward(self, x: Tensor) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.steps += 1
        return self._compute_loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self._compute_loss(batch))

    def _compute_loss(self, batch: Any) -> Any:
        return (self(batch[0]).mean(1) - batch[1]).pow(2).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Scores(Embedding):
    """States a type, and gives its outputs."""

    kind: ClassVar[str] = "regression"

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return {"value": self.net(batch["x"]).mean(1, keepdim=True)}


class Classes(Embedding):
    """Gives a row of logits where the truth is a class, and makes its network in `setup`."""

    def __init__(self) -> None:
        super().__init__()
        del self.net

    def setup(self, stage: str) -> None:
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    def _compute_loss(self, batch: Any) -> Any:
        return F.cross_entropy(self(batch[0]), batch[1])


class Branches(Classes):
    """A class of logits by a branch on a value."""

    def forward(self, x: Tensor) -> Any:
        return self.net(x) if x.sum() > 0 else self.net(-x)


class OneRow(Classes):
    """Gives a row for the batch, not for each sample."""

    def forward(self, x: Tensor) -> Any:
        logits = self.net(x)
        return logits if self.training else {"mean": logits.mean(0)}


class Subtracts(Classes):
    """Has nothing to quantise."""

    def setup(self, stage: str) -> None:
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Any:
        return x[:, :3] - self.shift


class NeedsAStep(Classes):
    """Has what its forward needs only after the first training batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.scale = 1.0
        return super().training_step(batch, batch_idx)

    def forward(self, x: Tensor) -> Any:
        return self.net(x) * (1.0 if self.training else self.scale)


class Rows(LightningDataModule):
    """Rows whose truth is a number, or a class."""

    def __init__(self, classes: bool, loaders: int = 1) -> None:
        super().__init__()
        x = torch.linspace(-1, 1, 320).reshape(80, 4)
        y = torch.arange(80)
        self.rows, self.loaders = TensorDataset(x, y % 3 if classes else y / 80), loaders

    def train_dataloader(self) -> Any:
        return DataLoader(self.rows, 20, shuffle=True)

    def val_dataloader(self) -> Any:
        loaders = [DataLoader(self.rows, 20, shuffle=True) for _ in range(self.loaders)]
        return loaders[0] if self.loaders == 1 else loaders


def fit(task: LightningModule, data: LightningDataModule, tmp_path: Any, *, compressed: bool = True) -> None:
    torch.manual_seed(0)
    callbacks = [ModelCheckpoint(tmp_path), *([Int8()] if compressed else [])]
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=callbacks, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)


pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*shuffling enabled.*")


@pytest.mark.parametrize(
    ("task", "data", "what", "why"),
    [
        (Embedding(), Rows(False), "int8 can't be judged: no metric of the task is known", "the task states no type"),
        (Branches(), Rows(True), "the model can't be exported to ONNX", "Python code decides by the values"),
        (OneRow(), Rows(True), "the output 'mean' is", "a servable answers each sample"),
        (Subtracts(), Rows(True), "there is nothing to quantise", "the graph has none"),
        (Classes(), Rows(True, loaders=0), "the data module has 0 validation loaders", ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LightningModule) else "",
)
def test_what_would_fail_after_the_last_step_is_refused_before_the_first(
    task: Embedding, data: Rows, what: str, why: str, tmp_path: Any
) -> None:
    with pytest.raises(MLScaleError) as caught:
        fit(task, data, tmp_path)
    assert caught.value.exit == 2
    assert caught.value.what.startswith(what)
    assert why in caught.value.why
    assert any(line.startswith("compress=none") for line in caught.value.fix.splitlines())
    assert task.steps == 0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "classes"), [(Scores, False), (Classes, True)])
def test_what_can_be_compressed_trains_bitwise_as_without(kind: type[Embedding], classes: bool, tmp_path: Any) -> None:
    weights = []
    for compressed in (True, False):
        torch.manual_seed(3)
        task = kind()
        fit(task, Rows(classes), tmp_path / str(compressed), compressed=compressed)
        assert task.steps == 4
        assert task.training
        weights.append(task.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_a_module_lacks_until_its_first_step_is_no_refusal(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    task = NeedsAStep()
    fit(task, Rows(True), tmp_path)
    assert task.steps == 4
    reported = capsys.readouterr().err
    assert "compress  int8 could not be tried before the fit: AttributeError: " in reported
    assert "in forward" in reported


def test_only_what_is_not_built_in_is_tried(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def export(served: object) -> bytes:
        tried.append(served)
        return b""

    monkeypatch.setattr(compression_trial, "export_onnx", export)
    compression_trial.try_compression(classifier(ResNet(1, 10, widths=(4,))), digits, len)
    assert not tried
    # A network of a user's own in a built-in task.
    own = classifier(Attention())
    own.trainer = Trainer(logger=False, enable_checkpointing=False)
    compression_trial.try_compression(own, digits, len)
    assert len(tried) == 1


def test_a_stated_type_without_a_score_is_refused_by_its_name(digits: Digits) -> None:
    task = classifier(ResNet(1, 10, widths=(4,)))
    unscored = type("Unscored", (ClassificationType,), {"name": "unscored", "score": None})
    task.task_type = unscored()
    with pytest.raises(MLScaleError) as caught:
        compression_trial.try_compression(task, digits, len)
    assert caught.value.why == "the task type 'unscored' has no score"
