"""What docs/tasks.md and docs/data.md say of tasks is so: commands compose and pass the check, the example runs."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlscale.cli import main
from mlscale.tasks import Task
from tests.unit.fitting import Loader, batches, trainer

DOCS = Path(__file__).resolve().parents[2] / "docs"


def commands(name: str) -> list[str]:
    """The commands of a page's blocks, lines that go on put together."""
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    text = "".join(blocks).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("mlscale ")]


COMMANDS = [*commands("tasks.md"), *commands("data.md")]


def test_there_are_some() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_passes_the_check(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "timm." in command:
        pytest.importorskip("timm")
    assert main(["config", "check", *shlex.split(command, comments=True)[1:]]) == 0, capsys.readouterr().err


def test_a_task_of_one_s_own() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "tasks.md").read_text(), re.DOTALL)
    made: dict[str, Any] = {}
    exec(code, made)
    task = made["Kappa"](2, model=nn.Linear(3, 2))
    assert isinstance(task, Task)
    (metrics,) = trainer().validate(task, Loader(batches(3)), verbose=False)
    assert set(metrics) == {"val/loss", "val/kappa"}
    assert task.predict_step(batches(1)[0], 0)["logits"].shape == torch.Size([4, 2])
