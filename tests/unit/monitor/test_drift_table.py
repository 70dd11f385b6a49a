"""All columns that changed are listed, also those for which the sentence has no room."""

from mlscale.monitor.drift_plots import build_drift_table, list_changed_columns
from mlscale.monitor.window_check import MonitorLimits, check_rules
from tests.unit.monitor.conftest import baseline, window


def test_each_changed_column_has_a_row_and_a_document() -> None:
    checked = check_rules(baseline(), window(1000, seed=1, shift=1), MonitorLimits())
    assert "and 2 more" in checked.sentence
    (table,) = build_drift_table(checked.columns, 0.1)
    documents = list_changed_columns(checked.columns, 0.1)
    assert len(table.rows) == len(documents) == 3
    for row, document in zip(table.rows, documents, strict=True):
        assert row[2] == document["change"]
        assert (row[4], document["alert"]) == ("alert", True)
        assert document["shift_sigma"] > 0.5
        assert document["q"] < 0.01
    distances = [document["distance"] for document in documents]
    assert distances == sorted(distances, reverse=True)


def test_nothing_that_changed_is_no_table() -> None:
    checked = check_rules(baseline(), window(1000, seed=1), MonitorLimits())
    assert (build_drift_table(checked.columns, 0.1), list_changed_columns(checked.columns, 0.1)) == ((), [])
