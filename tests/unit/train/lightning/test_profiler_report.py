"""The report of Lightning's profilers: printed after a fit, and kept in the run folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.profilers import Profiler, SimpleProfiler
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from mlscale.train.lightning.quiet import suppress_library_messages
from mlscale.train.trainer_patches import keep_profiler_report


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch[0]).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, profiler: Profiler | str | None) -> None:
    suppress_library_messages()
    trainer = Trainer(
        default_root_dir=folder, max_epochs=1, profiler=profiler, logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    keep_profiler_report(trainer)
    trainer.fit(Line(), DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=1))


@pytest.mark.parametrize("name", ["simple", "advanced", "pytorch"])
def test_a_profiler_by_name_prints_its_report_and_leaves_it_in_the_run_folder(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, name)

    stored = (tmp_path / "logs" / "profiler" / f"fit-{name}.txt").read_text()
    printed = capfd.readouterr().err
    assert "FIT Profiler Report" in stored
    assert "FIT Profiler Report" in printed
    assert str(tmp_path / "logs" / "profiler") in printed
    # The advanced report has thousands of lines.
    assert len(printed.splitlines()) < 80


def test_a_folder_and_name_of_the_user_stay(tmp_path: Path) -> None:
    fit(tmp_path, SimpleProfiler(dirpath=tmp_path / "mine", filename="times"))

    assert (tmp_path / "mine" / "fit-times.txt").is_file()


def test_a_run_without_a_profiler_leaves_no_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, None)

    assert not (tmp_path / "logs").exists()
    assert "Profiler Report" not in capfd.readouterr().err
