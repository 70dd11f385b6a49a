"""When `mlscale predict` ends well."""

import pytest

from mlscale.commands.predict.entry import has_read_enough


@pytest.mark.parametrize(
    ("rows", "errors", "most", "enough"),
    [
        (10, 0, None, True),
        (10, 9, None, True),
        (10, 10, None, False),  # a table that the model can't take, not a bad row here and there
        (10, 3, 3, True),
        (10, 4, 3, False),
        (0, 0, None, True),
    ],
)
def test_how_many_may_be_unreadable(rows: int, errors: int, most: int | None, enough: bool) -> None:
    assert has_read_enough(rows, errors, most) is enough
