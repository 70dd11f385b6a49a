"""How much a run does."""

from typing import Any

import pytest

from mlscale.estimate.time_probe import RunLength, compute_run_length, limit_batches


@pytest.mark.parametrize(
    ("trainer", "found"),
    [
        ({}, RunLength(220, 10, 10, 6)),
        ({"limit_val_batches": 2}, RunLength(220, 10, 10, 2)),
        ({"limit_val_batches": 0}, RunLength(220, 10, 0, 0)),
        ({"limit_val_batches": 0.5}, RunLength(220, 10, 10, 3)),
        ({"check_val_every_n_epoch": 3}, RunLength(220, 10, 3, 6)),
        ({"val_check_interval": 0.25}, RunLength(220, 10, 40, 6)),
        ({"val_check_interval": 11}, RunLength(220, 10, 20, 6)),
        ({"val_check_interval": 50, "check_val_every_n_epoch": None}, RunLength(220, 10, 4, 6)),
    ],
)
def test_validations(trainer: dict[str, Any], found: RunLength) -> None:
    assert compute_run_length(trainer, 22, 220, 6) == found


def test_a_part_of_an_epoch_counts_as_one() -> None:
    assert compute_run_length({}, 22, 30, 6) == RunLength(30, 2, 1, 6)


def test_a_run_without_an_end_has_no_plan() -> None:
    assert compute_run_length({}, 22, None, 6) is None
    assert compute_run_length({}, None, 220, 6) is None


def test_limits() -> None:
    assert [limit_batches(limit, 10) for limit in (None, 3, 30, 0.25, 0.01, 0, 0.0)] == [10, 3, 10, 2, 1, 0, 0]
