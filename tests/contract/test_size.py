"""The size of each package against its budget: what is counted, and when `--check` fails."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from scripts.measure_size import count_lines, list_excesses, main
from scripts.measured_code import read_code

SOURCE = '''"""What a module holds."""

SIZE = 3  # a comment beside code
"""Of something."""


def read(path):
    """Return nothing."""
    # A comment alone.
    return (
        path
    )
'''


def test_code_lines_are_counted_by_package(tmp_path: Path) -> None:
    for place in ("mlscale/one.py", "mlscale/data/two.py", "mlscale/data/deep/three.py", "scripts/four.py"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(SOURCE)
    code = read_code(tmp_path)
    assert count_lines(code) == {"mlscale": 5, "data": 10}
    assert set(code.tokens.values()) == {13}
    assert count_lines(read_code(tmp_path, "scripts")) == {"scripts": 5}


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        ({"data": 10, "serve": 7}, []),
        ({"data": 9, "serve": 7}, ["data has 10 code lines, its budget is 9"]),
        ({"serve": 7}, ["data has 10 code lines, its budget is 0"]),
        ({"data": 10, "serve": 8, "drill": 5}, ["drill has a budget and no code"]),
    ],
)
def test_a_package_above_its_budget_is_told(budgets: dict[str, int], told: list[str]) -> None:
    sentences = list_excesses(Counter(data=10, serve=7), budgets)
    assert [sentence.split(":")[0] for sentence in sentences] == told


def test_no_package_is_above_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err
