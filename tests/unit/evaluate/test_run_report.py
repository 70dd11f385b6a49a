"""What a run keeps for its page: inputs of the first batch, predictions of the last validation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from mlscale.atomic_files import read_json
from mlscale.errors import MLScaleError
from mlscale.evaluate.run_report import RunReport
from mlscale.report import ConfusionMatrixPlot, Figure, Heading, ImageBlock, TableBlock
from mlscale.report.figures import convert_to_blocks
from mlscale.runs.folder import RunFolder
from mlscale.tasks import Classification
from tests.unit.fitting import SGD, Loader, batches, classifier, trainer


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run", command="train", config_yaml="a: 1\n")


def fitted(run: RunFolder, task: LightningModule, train: list[Any], val: list[Any], **settings: int) -> Any:
    fit = trainer(callbacks=[RunReport(**settings)], default_root_dir=run.path, max_epochs=2)
    fit.fit(task, Loader(train), Loader(val))
    return fit


def kept(run: RunFolder, section: str) -> list[Figure]:
    path = run.path / "logs/report" / f"{section}.json"
    return convert_to_blocks(read_json(path)["blocks"]) if path.exists() else []


class Images(LightningModule):
    """A user's own: it has neither a kind nor a predict_step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 2)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Failing(Classification):
    """Its predictions fail, and its training does not."""

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        raise ValueError("<b>no</b>")


def test_every_nth_batch_of_a_validation_is_collected(run: RunFolder) -> None:
    fitted(run, classifier(), batches(2), batches(10), samples=20)
    heading, matrix, *_ = kept(run, "predictions")
    assert isinstance(heading, Heading)
    assert heading.text.startswith("Of the last validation: 20 samples of 40. Rows are true classes")
    assert isinstance(matrix, ConfusionMatrixPlot)
    assert sum(map(sum, matrix.values)) == 20
    assert (matrix.y, matrix.x) == ("true", "predicted")


def test_training_is_the_same_with_and_without_it(run: RunFolder) -> None:
    weights = []
    for settings in ({}, {"inputs": 0, "samples": 0}):
        task = classifier()
        fit = fitted(run, task, batches(3), batches(3), **settings)
        weights.append([value.clone() for value in task.state_dict().values()] + list(fit.callback_metrics.values()))
        assert "forward" not in vars(task)
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_images_of_a_module_of_ones_own(run: RunFolder) -> None:
    batch = (torch.rand(20, 3, 4, 4), torch.zeros(20, dtype=torch.int64))
    fitted(run, Images(), [batch], [batch], inputs=5)
    _, sheet = kept(run, "inputs")
    assert isinstance(sheet, ImageBlock)
    assert sheet.alt == "; ".join(["0"] * 5)
    assert kept(run, "predictions") == []


@pytest.mark.parametrize("batch", [torch.rand(4, 3), {"a": torch.rand(4, 3)}, (torch.rand(4, 3), ["a"] * 4)], ids=type)
def test_other_batches_are_left_out(run: RunFolder, batch: object) -> None:
    report = RunReport()
    fit = trainer(default_root_dir=run.path)
    report.on_train_batch_start(fit, classifier(), batch, 0)
    report.on_train_end(fit, classifier())
    assert kept(run, "inputs") == []


def test_a_prediction_that_fails_ends_no_training(run: RunFolder) -> None:
    fit = fitted(run, Failing(2, model=nn.Linear(3, 2), optimizer=SGD), batches(2), batches(2))
    assert fit.global_step == 4
    (heading,) = kept(run, "predictions")
    assert isinstance(heading, Heading)
    assert heading.text == "None are shown: ValueError: <b>no</b>"


def test_a_run_that_fails_keeps_what_it_had(run: RunFolder) -> None:
    task, val = classifier(), batches(2)
    with pytest.raises(RuntimeError):
        fitted(run, task, [*batches(2), {"x": torch.rand(2, 9), "y": torch.zeros(2)}], val)
    assert not any(isinstance(block, TableBlock) for block in kept(run, "inputs"))  # no encoder names the columns
    assert kept(run, "predictions") == []  # no validation ended
    assert "forward" not in vars(task)


def test_numbers_of_samples_are_checked() -> None:
    with pytest.raises(MLScaleError, match=r"callbacks\.report\.samples is -1"):
        RunReport(samples=-1)
