"""Validation rows that are training rows are counted and named, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.data import TableFiles
from mlscale.data.inspection.shared_rows import find_shared_rows


def write(path: Path, rows: NDArray[Any]) -> str:
    lines = [",".join(map(str, row)) + f",{'yes' if number % 3 else 'no'}" for number, row in enumerate(rows.tolist())]
    path.write_text("\n".join(["a,b,c,target", *lines, ""]))
    return str(path)


@pytest.mark.parametrize("shared", [0, 1, 7])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shared_rows_are_counted(tmp_path: Path, shared: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    train, val = draw.normal(size=(200, 3)).round(6), draw.normal(size=(40, 3)).round(6)
    picks = draw.choice(40, shared, replace=False)
    val[picks] = train[draw.choice(200, shared, replace=False)]
    data = TableFiles(write(tmp_path / "t.csv", train), "target", val=write(tmp_path / "v.csv", val))
    found = find_shared_rows(data.get_rows("train"), data.get_rows("val"))
    if not shared:
        assert found is None
        return
    assert found is not None
    assert (found.rows, found.of) == (shared, 40)
    # The names have the lines, from 1, of the rows whose inputs are equal.
    places = [name.split()[1::2] for name in found.first]
    lines = [(tmp_path / file).read_text().splitlines()[int(line) - 1] for line, file in places]
    assert lines[0].rpartition(",")[0] == lines[1].rpartition(",")[0]


def test_tables_with_few_different_rows_are_no_leak(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    train, val = draw.integers(0, 2, (200, 3)), draw.integers(0, 2, (40, 3))
    data = TableFiles(write(tmp_path / "t.csv", train), "target", val=write(tmp_path / "v.csv", val))
    assert find_shared_rows(data.get_rows("train"), data.get_rows("val")) is None
