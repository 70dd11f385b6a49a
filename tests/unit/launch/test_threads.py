"""OpenMP's threads wait for a moment and then sleep, unless the user has chosen."""

import os

import pytest

from mlscale.launch.threads import wait_passively


@pytest.mark.parametrize(
    ("typed", "policy", "turns"),
    [
        ({}, "PASSIVE", "2000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", None),
        ({"GOMP_SPINCOUNT": "0"}, "PASSIVE", "0"),
    ],
)
def test_what_the_user_has_set_stays(
    monkeypatch: pytest.MonkeyPatch, typed: dict[str, str], policy: str, turns: str | None
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in typed.items():
        monkeypatch.setenv(name, value)
    wait_passively()
    chosen = os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert chosen == (policy, turns)
