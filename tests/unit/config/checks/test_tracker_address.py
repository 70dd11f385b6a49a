"""A folder as the address of MLflow's server is reported before a run."""

from __future__ import annotations

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config

KEY = "logger.mlflow.tracking_uri"


def list_fixes(*overrides: str) -> list[str]:
    request = parse_command_line("train", overrides)
    return [problem.fix for problem in check_config(compose_config(request), groups=request.roots.groups)]


@pytest.mark.parametrize("address", ["/data/mlruns", "./mlruns/", "file:///data/mlruns", "file:mlruns"])
def test_a_folder_is_no_address(address: str) -> None:
    (fix,) = list_fixes("logger=mlflow", f"{KEY}={address}")
    assert fix == f"{KEY}=<the address of a server>"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:5000", "sqlite:///mlflow.db", "databricks", "databricks://profile"]
)
def test_addresses_stay(address: str) -> None:
    assert list_fixes("logger=mlflow", f"{KEY}={address}") == []


def test_the_default_address_stays() -> None:
    assert list_fixes("logger=mlflow") == []
