"""The page of a training: of one that has ended, and of one that has not."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.atomic_files import write_json
from mlscale.commands.train.train_result import build_train_blocks, write_failure_page
from mlscale.errors import Exit, MLScaleError
from mlscale.report import CommandList, Heading, LinePlot, TableBlock
from mlscale.report.figures import convert_from_blocks
from mlscale.runs.folder import RunFolder
from tests.page_elements import Elements

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def cfg() -> DictConfig:
    return OmegaConf.create(
        {
            "name": "net", "seed": 3, "metric": "val/loss", "runs_dir": "runs", "trainer": {"max_epochs": 2},
            "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "momentum": 0, "a": "${seed}"},
            "model": {"_target_": "a.Net", "name": EVIL}, "task": None,
            "derived": {"accelerator": "cpu", "world_size": 2, "threads": 1},
        }
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path, "net", command="train", config_yaml="a: 1\n", overrides=["+recipe=net", EVIL])
    run.start_attempt(resumed_step=4)
    (run.path / "logs/report").mkdir(parents=True)
    (run.path / "logs/metrics.csv").write_text("step,train/loss,train/lr\n0,2.0,0.1\n9,1.0,0.1\n")
    return run


def test_curves_of_all_attempts_and_the_configuration(cfg: DictConfig, run: RunFolder) -> None:
    blocks = build_train_blocks(cfg, run, {"best_val/loss": 0.5, "steps": 10}, "done")
    loss = next(block for block in blocks if isinstance(block, LinePlot))
    assert [event.x for event in loss.events] == [4]
    assert list(loss.series[0].x) == [0, 9]
    table = next(block for block in blocks if isinstance(block, TableBlock))
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["typed"].startswith("mlscale +recipe=net ")
    assert rows["devices"] == "cpu × 2, 1 thread each"
    commands = next(block for block in blocks if isinstance(block, CommandList))
    assert commands.commands[0][0] == f"mlscale evaluate {run.id}"


def test_a_run_that_diverged_has_a_page(cfg: DictConfig, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(run.path / "logs/report/inputs.json", {"blocks": convert_from_blocks([Heading("Inputs", EVIL)])})
    (run.path / "logs/report/predictions.json").write_text('{"blocks": [{"kind": "Path"}]}')  # corrupt: left out
    error = MLScaleError(f"loss is NaN at step 9 {EVIL}", fix="optimizer.lr=0.01", exit=Exit.DIVERGED)
    write_failure_page(cfg, run, error, "diverged")
    page = run.path / "results/train.html"
    assert capsys.readouterr().err == f"page      {page}\n"
    assert not page.with_suffix(".json").exists()
    elements = Elements(page.read_text())
    for part in ("✗ diverged", "loss is NaN at step 9", f"mlscale like={run.id}", "train/loss"):
        assert part in elements.text()
    assert elements.all("script") == []
    assert elements.text().count(EVIL) >= 3  # as text


def test_a_run_that_was_stopped_can_be_resumed(cfg: DictConfig, run: RunFolder) -> None:
    (run.path / "logs/metrics.csv").unlink()
    cfg.runs_dir = "/elsewhere"
    blocks = build_train_blocks(cfg, run, {}, "interrupted")
    assert any(isinstance(block, Heading) and "logger=csv" in block.text for block in blocks)
    commands = next(block for block in blocks if isinstance(block, CommandList))
    assert commands.commands[0][0] == f"mlscale runs resume {run.id} runs_dir=/elsewhere"
