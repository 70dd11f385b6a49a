"""Recipes of an image, a table and a text go to Triton by the command line, and the real server approves them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mlscale
from mlscale.contracts.servable_yaml import read_document
from mlscale.targets.triton.install_server import VARIABLE
from tests.triton_server import find_triton

pytestmark = pytest.mark.nightly


@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", ["resnet", "tabular", "text"])
def test_a_recipe_is_approved(recipe: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(find_triton()))
    mlscale.run("train", [f"+recipe={recipe}", "trainer.max_epochs=1"])
    # Of all validation samples, up to a thousand, each is answered bitwise alike.
    result = mlscale.run(
        "export", ["last", "target=triton", "check=server", "check_samples=1000", "to=servable", "slo.p99_ms=10000"]
    )
    assert result.metrics["target_triton_server_relative_error"] == 0
    assert result.metrics["target_triton_server_samples"] > 100
    approved = read_document(folder / "servable")["export_targets"]["triton"]
    assert re.fullmatch(r"triton 2\.\d+\.\d+ with ONNX Runtime in Python", approved["approved_by"])
    assert approved["agreement"] == 1
    # The models in Python were run from there.
    assert not list((folder / "servable").rglob("__pycache__"))
