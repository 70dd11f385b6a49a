"""Golden messages for keys that another group owns, and derived ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.messages.golden import check_message

CASES = [
    (
        "trainer.precision=bf16-mixed",
        """
'trainer.precision' is not set here
  where: command line: trainer.precision=bf16-mixed
  why:   the group 'precision' owns it
  fix:   precision=bf16
""",
    ),
    (
        "trainer.strategy=ddp_find_unused_parameters_true",
        """
'trainer.strategy' is not set here
  where: command line: trainer.strategy=ddp_find_unused_parameters_true
  why:   the group 'strategy' owns it
  fix:   strategy=ddp strategy.find_unused_parameters=true
""",
    ),
    (
        "trainer.logger=false",
        """
'trainer.logger' is not set here
  where: command line: trainer.logger=false
  why:   the group 'logger' owns it
  fix:   logger=none
""",
    ),
    (
        "trainer.callbacks=early_stopping",
        """
'trainer.callbacks' is not set here
  where: command line: trainer.callbacks=early_stopping
  why:   the group 'callbacks' owns it
  fix:   callbacks=[default,early_stopping]
""",
    ),
    (
        "trainer.num_nodes=2",
        """
'trainer.num_nodes' is not set here
  where: command line: trainer.num_nodes=2
  why:   a launcher sets the number of machines: torchrun --nnodes, srun --nodes, or launch=slurm; machines; each \
has trainer.devices processes
  fix:   launch.nodes=2
""",
    ),
    (
        "strategy.world_size=2",
        """
'strategy.world_size' is not set here
  where: command line: strategy.world_size=2
  why:   it is the number of processes; processes on this machine, one per accelerator; on a CPU, any number
  fix:   trainer.devices=2
""",
    ),
    (
        "derived.total_steps=100",
        """
'derived.total_steps' is filled in at start, never set by hand
  where: command line: derived.total_steps=100
  why:   trainer.max_epochs decides it
  fix:   trainer.max_epochs=<value>
""",
    ),
    (
        "derived.num_classes=7",
        """
'derived.num_classes' is filled in at start, never set by hand
  where: command line: derived.num_classes=7
  why:   it comes from the data and the machine
  fix:   leave derived.num_classes out
""",
    ),
]


@pytest.mark.parametrize(("typed", "message"), CASES, ids=[typed for typed, _ in CASES])
def test_message(folder: Path, monkeypatch: pytest.MonkeyPatch, typed: str, message: str) -> None:
    check_message(folder, monkeypatch, typed, message)


def test_number_of_cases() -> None:
    assert len(CASES) >= 8
