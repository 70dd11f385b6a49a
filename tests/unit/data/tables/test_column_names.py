"""Columns of any name can be typed on the command line, and every error shows how."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.config.composition.argv import build_request
from mlscale.config.composition.compose import compose_config
from mlscale.config.names.suggest import format_override
from mlscale.config.schema.roots import find_roots
from mlscale.data.table_parsing.columns import DataTable, read_column_units
from mlscale.errors import MLScaleError

NAMES = [
    "plain", "two words", "Temp (°C)", "größe", 'it\'s "x"', "a, b", "v[0].y", "a.b", "a: b", "{x}", "#n", "5", "1e3",
    "true", "null", "a=b", "$HOME", "`id`", "a\\", "back\\slash", "50%", "日本", "",
]  # fmt: skip


def read_back(fix: str, key: str) -> Any:
    """Return the value that a fix has once it is typed in a shell and composed."""
    shell = [str(shutil.which("bash")), "-c", f"printf '%s\\0' {fix}"]
    words = subprocess.run(shell, capture_output=True, check=True, text=True).stdout.split("\0")[:-1]
    assert len(words) == 1, words
    roots = find_roots()
    request = build_request("train", ["+recipe=tabular", "data=table", "data.train=a", "data.target=b", *words], roots)
    value: Any = compose_config(request)
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_typed(name: str) -> None:
    assert read_back(format_override("data.target", name), "data.target") == name
    assert list(read_back(format_override("data.ignore", [name]), "data.ignore")) == [name]


@pytest.mark.parametrize("key", ["data.target", "data.ignore", "data.categorical"])
def test_the_error_of_a_mistyped_name_shows_how_to_type_the_nearest(key: str) -> None:
    table = DataTable({'Temp (°C), "in"': np.zeros(1)}, ["1"])
    with pytest.raises(MLScaleError) as caught:
        table.get_column("Temp", where=key)
    value = read_back(caught.value.fix, key)
    assert '"in"' in str(value)


def test_units_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text('\ufeffcolumn,unit\nTemp (°C),K\n"a, ""b""",mm\n', encoding="utf-8")
    assert read_column_units(str(tmp_path / "u.csv")) == {"Temp (°C)": "K", 'a, "b"': "mm"}
    with pytest.raises(MLScaleError) as caught:
        DataTable({"Temp (°C)": np.zeros(1)}, ["1"]).get_column("Temp", where="data.units")
    assert "units.csv" in str(caught.value.fix)


def test_names_that_read_as_other_types_are_texts() -> None:
    assert read_column_units({5: "K", True: "mm"}) == {"5": "K", "true": "mm"}


@pytest.mark.parametrize("units", ["{a, b: K}", "absent.csv"])
def test_units_that_cannot_be_read_name_the_form_that_works(units: str) -> None:
    with pytest.raises(MLScaleError, match="can't be read") as caught:
        read_column_units(units)
    assert "units.csv" in caught.value.fix
