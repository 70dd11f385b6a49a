"""The record of what mlscale does: what is left out of it, and when a comparison fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.behaviour.__main__ import list_differences
from scripts.behaviour.parts import HALVES, RECIPES, SMALL, build_parts, keep_common
from scripts.docs_commands import ROOT


def test_what_is_measured_in_seconds_is_left_out() -> None:
    document = {
        "metrics": {"val/accuracy": 0.1 + 0.2, "latency_ms": 3.2, "seconds": [1.0]},
        "artifacts": {"run": "a"},
        "details": [{"node": "conv", "run": "2026"}],
    }
    assert keep_common(document) == {"metrics": {"val/accuracy": 0.3}, "details": [{"node": "conv"}]}


def test_a_difference_is_shown_with_its_neighbours(tmp_path: Path) -> None:
    for name, text in (("one", "[\n1,\n2\n]\n"), ("other", "[\n1,\n3\n]\n")):
        (tmp_path / name).write_text(text)
    assert list(list_differences(tmp_path / "one", tmp_path / "one")) == []
    assert list(list_differences(tmp_path / "one", tmp_path / "other")) == ["@@ -2,3 +2,3 @@", " 1,", "-2", "+3", " ]"]


def test_every_recipe_is_recorded() -> None:
    recipes = {path.stem for path in (ROOT / "recipes/recipe").glob("*.yaml")}
    assert recipes == set(RECIPES)
    assert set(SMALL) | {f"folder/{name}" for name in HALVES} <= set(build_parts())


@pytest.mark.slow
def test_a_changed_digest_and_a_part_that_is_not_recorded_fail(tmp_path: Path) -> None:
    def type_words(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "scripts.behaviour", words[0], str(tmp_path), "--parts", *words[1:]]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
        return done.returncode, done.stdout + done.stderr

    part = "run/tabular-1"
    assert type_words("record", part)[0] == 0
    recorded = tmp_path / f"made/parts/{part}.json"
    weights = recorded.read_text()
    assert weights.count("/weights/") > 3
    recorded.write_text(weights.replace("a", "b", 1) if "a" in weights else weights.replace("1", "2", 1))
    code, printed = type_words("compare", part)
    assert (code, f"{part:24} DIFFERS" in printed) == (1, True), printed
    shown = [line for line in printed.splitlines() if line.lstrip().startswith("+")]
    assert len(shown) == 1, printed  # the rest agrees
    code, printed = type_words("compare", "help")
    assert (code, "is not recorded" in printed) == (1, True), printed
