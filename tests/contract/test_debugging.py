"""debug=… does what it says; breakpoint() asks on rank 0 alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlscale import commands
from tests.contract.commands import environment, mlscale, only_run
from tests.contract.test_terminal import at_terminal

WORDS = ["+recipe=resnet", "model=mlp", "snapshot=false"]
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "logger=none"]
STOPS = """from pytorch_lightning import Callback


class Stops(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if index == 1:
            number = 41 + trainer.global_rank
            breakpoint()
            self.seen = number
"""
HERE = "+callbacks.stops._target_=stops_in_debugging.Stops"


def steps(*words: str) -> float:
    return commands.run_command("train", [*WORDS, *words]).metrics["steps"]


def test_fast_takes_a_step_of_everything_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert steps("debug=fast") == 1
    assert "debug     fast: One training step and one validation step" in capsys.readouterr().err


def test_limit_takes_a_tenth_for_two_epochs(folder: Path) -> None:
    assert steps("debug=limit") == 2 * 2  # of 22 batches


@pytest.mark.slow
def test_overfit_learns_one_batch_by_heart(folder: Path) -> None:
    result = commands.run_command("train", [*WORDS, "debug=overfit"])
    assert result.metrics["steps"] == 100
    assert result.metrics["best_train/loss"] < 0.05
    assert "scheduler" not in (only_run(folder) / "derived.yaml").read_text()


@pytest.mark.slow
def test_breakpoint_asks_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "stops_in_debugging.py").write_text(STOPS)
    command = at_terminal(tmp_path, *WORDS, *SHORT, HERE)
    command.read_until("(Pdb)")
    command.type("p number * 2")
    command.read_until("82")
    command.type("c")
    assert command.ended() == 0, command.text


@pytest.mark.slow
def test_breakpoint_asks_on_rank_0_alone(tmp_path: Path) -> None:
    (tmp_path / "stops_in_debugging.py").write_text(STOPS)
    command = at_terminal(tmp_path, *WORDS, *SHORT, HERE, "trainer.devices=2", "debug=breakpoint")
    command.read_until("(Pdb)")
    assert "stops_in_debugging.py" in command.text
    command.type("p number * 2")
    command.read_until("82")
    command.type("c")
    assert command.ended() == 0, command.text
    assert command.text.count("-> breakpoint()") + command.text.count("-> self.seen = number") == 1
    assert "timeout: 86400" in (only_run(tmp_path) / "config.yaml").read_text()


@pytest.mark.slow
def test_the_prompt_left_by_q_ends_the_run_as_an_interrupt_does(tmp_path: Path) -> None:
    (tmp_path / "stops_in_debugging.py").write_text(STOPS)
    command = at_terminal(tmp_path, *WORDS, *SHORT, HERE, "trainer.devices=2", "debug=breakpoint")
    command.read_until("(Pdb)")
    command.type("q")
    assert command.ended() == 130, command.text
    assert "stopped at the debugger's prompt" in command.text
    assert "Traceback" not in command.text


@pytest.mark.slow
def test_without_a_terminal_a_breakpoint_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "stops_in_debugging.py").write_text(STOPS)
    done = mlscale(tmp_path, *WORDS, *SHORT, HERE, "trainer.devices=2", env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("breakpoint() is skipped") == 1
