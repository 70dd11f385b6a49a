"""A server that is to approve the challenger is looked for before the training, not after it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.commands.retrain import challenger_training
from mlscale.commands.retrain.challenger_training import check_approving_servers
from mlscale.errors import Exit, MLScaleError
from mlscale.targets.triton.install_server import VARIABLE
from mlscale.targets.triton.triton_target import IMAGE


def test_a_server_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[tuple[str, list[str]]] = []

    def compose(command: str, overrides: list[str]) -> DictConfig:
        composed.append((command, overrides))
        return OmegaConf.create({"target": {"triton": {"_target_": "mlscale.targets.TritonTarget"}}, "check": "server"})

    monkeypatch.setattr(challenger_training, "compose_from_overrides", compose)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    run: Any = SimpleNamespace(path=tmp_path)
    settings = {"runs_dir": "runs", "trust": False}
    check_approving_servers(OmegaConf.create({**settings, "approved": []}), run)
    assert not composed
    with pytest.raises(MLScaleError, match="a Triton server is not installed") as raised:
        check_approving_servers(OmegaConf.create({**settings, "approved": "triton"}), run)
    assert (raised.value.exit, raised.value.where) == (Exit.ENVIRONMENT, "approved")
    # Retraining has no key `check`.
    assert raised.value.fix.splitlines()[1:] == [f"docker pull {IMAGE}", "approved=[]"]
    ((command, overrides),) = composed
    assert command == "export"
    assert {"target=[triton]", "check=server"} <= set(overrides)


def test_a_mistyped_target_is_corrected_in_the_key_of_retraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compose(command: str, overrides: list[str]) -> DictConfig:
        raise MLScaleError("unknown option 'tritn' of group 'target'", where="target=[tritn]", fix="target=[triton]")

    monkeypatch.setattr(challenger_training, "compose_from_overrides", compose)
    run: Any = SimpleNamespace(path=tmp_path)
    settings = OmegaConf.create({"runs_dir": "runs", "trust": False, "approved": "tritn"})
    with pytest.raises(MLScaleError) as raised:
        check_approving_servers(settings, run)
    assert (raised.value.where, raised.value.fix) == ("approved=[tritn]", "approved=[triton]")
