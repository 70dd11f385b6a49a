"""The classes of a comparison as entries of the JSON result and as rows of the page."""

import json
import math

from mlscale.commands.retrain.cycle_result import build_class_blocks, build_class_entries
from mlscale.report import Heading, TableBlock
from mlscale.retrain.gate.class_comparison import ClassComparison, RelabelledName
from mlscale.retrain.gate.group_changes import CLASS, HELD, WORSE, GroupChange


def change(name: str, second: float, low: float = -0.05, family: str = CLASS, status: str = HELD) -> GroupChange:
    return GroupChange(family, name, 1500, 0.9, second, 20, 1020, low, 0.25, True, status)


def seen(name: str, second: float) -> GroupChange:
    return GroupChange(CLASS, name, 40, 0.5, second, 3, 1, math.nan, math.nan, False, "")


COMPARISON = ClassComparison(
    original=(change("a", 0.88), change("b", 0.4, -0.62, status=WORSE), change("night", 0.7, math.nan, "light")),
    window=(seen("a", 0.6), seen("night", 0.45), seen("b", 0.7)),
    relabelled={"night": RelabelledName("a", 1030, 1040)},
)


def get_table(comparison: ClassComparison, *, is_share: bool = True) -> TableBlock:
    heading, table = build_class_blocks(comparison, is_share=is_share)
    assert isinstance(heading, Heading)
    assert isinstance(table, TableBlock)
    return table


def test_entries_are_in_the_order_of_the_original_data() -> None:
    entries = build_class_entries(COMPARISON)
    sides = {"champion": 0.9, "negative_flips": 1020, "positive_flips": 20, "samples": 1500}
    window = {"champion": 0.5, "negative_flips": 1, "positive_flips": 3, "samples": 40}
    assert entries == [
        {
            "family": "class",
            "name": "a",
            "original": {**sides, "challenger": 0.88, "low": -0.05, "p": 0.25, "needs_proof": True, "status": "kept"},
            "window": {**window, "challenger": 0.6},
        },
        {
            "family": "class",
            "name": "b",
            "original": {**sides, "challenger": 0.4, "low": -0.62, "p": 0.25, "needs_proof": True, "status": "worse"},
            "window": {**window, "challenger": 0.7},
        },
        # A slice is not a class of the same name, and too few samples have no interval.
        {
            "family": "light",
            "name": "night",
            "original": {**sides, "challenger": 0.7, "low": None, "p": 0.25, "needs_proof": True, "status": "kept"},
        },
        {
            "family": "class",
            "name": "night",
            "window": {**window, "challenger": 0.45},
            "relabelled": {"label": "a", "count": 1030, "samples": 1040},
        },
    ]
    json.dumps(entries, allow_nan=False)


def test_the_largest_loss_is_the_first_row() -> None:
    table = get_table(COMPARISON)
    none = ("–",) * 2
    assert [tuple(row) for row in table.rows] == [
        ("b", "1,500", "90.0 → 40.0%", "1,020", "-62.0 %", "worse", "40", "50.0 → 70.0%", ""),
        ("light: night", "1,500", "90.0 → 70.0%", "1,020", "–", "kept", *none, ""),
        ("night", *none, "–", *none, "40", "50.0 → 45.0%", "a (1,030 of 1,040)"),
        ("a", "1,500", "90.0 → 88.0%", "1,020", "-5.0 %", "kept", "40", "50.0 → 60.0%", ""),
    ]
    # Worse, or contradicted by the window.
    assert list(table.marked) == [0, 2]
    assert {len(row) for row in table.rows} == {len(table.columns)} == {9}
    assert "JSON" not in table.note


def test_errors_have_no_sign() -> None:
    error = GroupChange(CLASS, "u", 30, -2.5, -12.25, 0, 20, -4.0, 0.01, True, WORSE)
    (row,) = get_table(ClassComparison(original=(error,)), is_share=False).rows
    assert row[2] == "2.5 → 12.25"
    # The interval is a share of the champion's.
    assert row[4] == "-400.0 %"


def test_the_page_has_fifty_rows_and_the_result_all() -> None:
    for count, note in (
        (50, None),
        (51, " 1 more are in the JSON result."),
        (1234, " 1,184 more are in the JSON result."),
    ):
        comparison = ClassComparison(original=tuple(change(str(number), number / count) for number in range(count)))
        table = get_table(comparison)
        assert [row[0] for row in table.rows] == [str(number) for number in range(50)]
        assert (note is None and "JSON" not in table.note) or table.note.endswith(str(note))
        assert len(build_class_entries(comparison)) == count


def test_nothing_compared_is_no_table() -> None:
    assert build_class_blocks(ClassComparison(), is_share=True) == []
