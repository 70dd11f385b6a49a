"""Precision by the command line: what a probe finds is kept, and float16 on a CPU goes on after a kill."""

import json
import signal
from pathlib import Path

import pytest
import torch
import yaml

from mlscale import commands
from mlscale.cli import main
from mlscale.runs.folder import RunFolder
from scripts.same_run import differences
from tests.conftest import runs_in
from tests.resume.commands import end, ended

WORDS = (
    "+recipe=resnet", "snapshot=false", "trainer.max_epochs=1", "++trainer.limit_train_batches=4",
    "++trainer.limit_val_batches=1", "scheduler=none", "optimizer=adamw",
)  # fmt: skip
NET = ("model.widths=[4,8]",)
HALF = ("model=mlp", "model.in_features=64", "precision=fp16", "precision.on_cpu=true")


def test_what_the_probe_finds_is_in_derived_and_used_from_then_on(folder: Path) -> None:
    result = commands.run_command("train", [*WORDS, *NET, "precision=auto", "precision.probe_seconds=1"])
    run = RunFolder.open(result.artifacts["run"])
    assert run.derived["precision"] in ("32-true", "bf16-mixed")
    assert yaml.safe_load(run.config_text)["precision"]["value"] == "${derived.precision}"
    figures = json.loads((run.path / "results/precision.json").read_text())
    assert set(figures) <= set(result.metrics)
    assert bool(figures) == (run.derived["precision"] != "32-true" or run.derived["memory_format"] is not None)
    # As though it had been found: evaluate takes what stands there, and probes nothing.
    (run.path / "derived.yaml").write_text(
        (run.path / "derived.yaml")
        .read_text()
        .replace(f"precision: {run.derived['precision']}", "precision: bf16-mixed")
    )
    assert commands.run_command("evaluate", [str(run.path)]).ok


@pytest.mark.slow
def test_a_comparison_on_request_stands_in_the_final_table(folder: Path) -> None:
    words = ["precision=bf16", "precision.compare=true", "precision.memory_format=channels_last"]
    result = commands.run_command("train", [*WORDS, *NET, *words])
    assert result.metrics["time_of_fp32"] > 0
    assert 0.3 < result.metrics["memory_of_fp32"] < 1.2
    (path,) = (Path(result.artifacts["run"]) / "checkpoints").glob("last.ckpt")
    weight = torch.load(path, weights_only=True)["state_dict"]["model.stages.0.first.0.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_float16_on_a_cpu_goes_on_to_the_bit(folder: Path) -> None:
    words = (
        *WORDS,
        *HALF,
        "precision.loss_scale=1e9",
        "++trainer.limit_train_batches=12",
        "callbacks.checkpoint.every_n_steps=3",
    )
    assert main([*words, "runs_dir=undisturbed"]) == 0
    code, printed = ended(folder, *words, end("step", folder, step=7))
    assert code == -signal.SIGKILL, printed
    assert main(["runs", "resume", "last", "trust=true"]) == 0
    (whole,), (run,) = runs_in(folder / "undisturbed"), runs_in(folder / "runs")
    assert differences(whole, run) == []
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert last["Mixed"]["skipped"] > 2


def test_twenty_skipped_steps_are_exit_code_3(folder: Path) -> None:
    assert main([*WORDS, *HALF, "precision.max_skipped=3", "precision.loss_scale=1e30"]) == 3
    (run,) = runs_in(folder)
    assert RunFolder.open(run).status == "diverged"
