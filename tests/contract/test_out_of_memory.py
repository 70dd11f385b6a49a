"""A model that asks for more memory than there is: the remedy is told, by one process and by two."""

from pathlib import Path

import pytest

from mlscale.errors import Exit
from tests.contract.commands import environment, mlscale

CODE = """
import torch
from torch import nn


class Hungry(nn.Linear):
    def __init__(self) -> None:
        super().__init__(64, 10)

    def forward(self, x):
        return super().forward(x.flatten(1) + torch.empty(1 << 50, dtype=torch.uint8)[0])
"""


@pytest.mark.parametrize(("devices", "batch"), [(1, 64), pytest.param(2, 32, marks=pytest.mark.slow)])
def test_the_peak_the_batch_and_what_helps_are_reported(tmp_path: Path, devices: int, batch: int) -> None:
    (tmp_path / "hungry.py").write_text(CODE)
    words = ["debug=fast", "model=none", "model._target_=hungry.Hungry", f"trainer.devices={devices}"]
    done = mlscale(tmp_path, *words, env=environment(tmp_path))
    assert done.returncode == Exit.ENVIRONMENT, done.stderr
    assert "out of memory on the host: the peak was " in done.stderr
    assert f"each device holds {batch} samples at a time" in done.stderr
    assert "trainer.accumulate_grad_batches=2" in done.stderr
    assert "data.batch_size=" in done.stderr
    assert "Traceback" not in done.stderr
