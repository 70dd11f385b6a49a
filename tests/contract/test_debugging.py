"""debug=… does what it says; breakpoint() asks on rank 0 alone; a debugger attaches to each rank."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from mlscale import commands
from mlscale.errors import Exit, MLScaleError
from mlscale.launch import debugger
from scripts.mlflow_server import free_port
from tests.contract.commands import environment, mlscale, only_run
from tests.contract.dap import Client
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
LOOKS = STOPS.replace("            breakpoint()\n", "")
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


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_debugger_attaches_to_each_rank(tmp_path: Path, devices: int) -> None:
    module = tmp_path / "stops_in_debugging.py"
    module.write_text(LOOKS)
    line = LOOKS.splitlines().index("            self.seen = number") + 1
    port = free_port()
    env = environment(tmp_path)
    words = [*WORDS, *SHORT, HERE, f"trainer.devices={devices}", f"debugger.port={port}", "debugger.wait=true"]
    out, err = tmp_path / "out", tmp_path / "err"  # no pipes: debugpy's adapter holds them until its client has gone
    with contextlib.ExitStack() as attached:
        files = [attached.enter_context(path.open("w")) for path in (out, err)]
        process = subprocess.Popen(
            [sys.executable, "-m", "mlscale", *words],
            cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, stdout=files[0], stderr=files[1],
        )  # fmt: skip
        attached.callback(process.kill)
        clients = [attached.enter_context(Client(port + rank)) for rank in range(devices)]
        for client in clients:
            client.attach(module, line)
        for rank, client in enumerate(clients):
            stopped = client.event("stopped")
            assert stopped["reason"] == "breakpoint"
            assert client.evaluate("number * 2", stopped["threadId"]) == str((41 + rank) * 2)
        for client in clients:
            client.ask("continue", threadId=1)
        assert process.wait(120) == 0, err.read_text()
    assert f"rank 0 listens on 127.0.0.1:{port}, and waits for one to attach" in err.read_text()
    assert "val/accuracy" in out.read_text()


def test_a_missing_debugpy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlscale.export.required_extras.find_spec", lambda name: None)
    with (
        pytest.raises(MLScaleError, match="debugpy is not installed") as caught,
        debugger.enable_debugging({"port": 5678}, rank=0, world_size=1),
    ):
        pass
    assert caught.value.exit is Exit.ENVIRONMENT
    assert "mlscale[debug]" in caught.value.fix
