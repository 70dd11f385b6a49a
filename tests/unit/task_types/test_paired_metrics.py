"""Metrics and their differences, as sentences show them."""

import pytest

from mlscale.task_types.paired_metrics import MetricDefinition


@pytest.mark.parametrize(
    ("definition", "difference", "shown"),
    [
        (MetricDefinition("accuracy", True, True), -0.0255, "-2.55%"),
        (MetricDefinition("accuracy", True, True), 0.0, "+0.00%"),
        # Of an error a sign would be read as that of the error.
        (MetricDefinition("rmse", False), -0.0255, "2.55% worse"),
        (MetricDefinition("rmse", False), 0.0255, "2.55% better"),
        (MetricDefinition("bits_per_byte", False), 0.0, "unchanged"),
    ],
)
def test_a_difference_shows_which_way_it_goes(definition: MetricDefinition, difference: float, shown: str) -> None:
    assert definition.describe_difference(difference) == shown
