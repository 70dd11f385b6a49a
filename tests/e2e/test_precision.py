"""Precision by the command line: what a probe finds is kept, and float16 on a CPU goes on after a kill."""

import signal
from pathlib import Path

import pytest
import torch
import yaml

from mlscale import commands
from mlscale.assembly.ready import compose_from_overrides
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


def test_a_run_of_precision_auto_keeps_what_its_probe_found(folder: Path) -> None:
    """As earlier versions left it: the config interpolates what is in derived.yaml."""
    result = commands.run_command("train", [*WORDS, *NET, "precision=bf16"])
    run = RunFolder.open(result.artifacts["run"])
    config, auto = yaml.safe_load(run.config_text), {"value": "${derived.precision}", "probe_seconds": 1.0}
    (run.path / "config.yaml").write_text(yaml.safe_dump({**config, "precision": auto}))
    (run.path / "derived.yaml").write_text(yaml.safe_dump({**run.derived, "precision": "bf16-mixed"}))
    for command in ("evaluate", "train"):
        words = [str(run.path)] if command == "evaluate" else [f"like={run.id}"]
        assert compose_from_overrides(command, words).precision.value == "bf16-mixed"


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
