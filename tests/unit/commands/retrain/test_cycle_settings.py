"""What of the typed overrides is for a cycle's training: none of the cycle's own keys."""

from __future__ import annotations

from omegaconf import OmegaConf

import mlscale.conf
from mlscale.commands.retrain.cycle_settings import list_training_overrides


def test_no_key_of_a_cycle_goes_to_its_training() -> None:
    keys = OmegaConf.load(f"{mlscale.conf.__path__[0]}/command/retrain.yaml")
    assert "approved" in keys
    typed = [f"{key}=1" for key in keys if key != "ref"]
    cfg = OmegaConf.create({"derived": {"overrides": [*typed, "optimizer.lr=0.01"]}})
    assert list_training_overrides(cfg) == ["optimizer.lr=0.01"]
