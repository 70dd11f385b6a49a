"""The task that docs/tasks.md shows is one: it measures and predicts."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlscale.tasks import Task
from tests.unit.fitting import Loader, batches, trainer

PAGE = Path(__file__).resolve().parents[2] / "docs/tasks.md"


def test_a_task_of_one_s_own() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    made: dict[str, Any] = {}
    exec(code, made)
    task = made["Kappa"](2, model=nn.Linear(3, 2))
    assert isinstance(task, Task)
    (metrics,) = trainer().validate(task, Loader(batches(3)), verbose=False)
    assert set(metrics) == {"val/loss", "val/kappa"}
    assert task.predict_step(batches(1)[0], 0)["logits"].shape == torch.Size([4, 2])
