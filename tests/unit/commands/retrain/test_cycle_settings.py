"""What of the typed overrides is for a cycle's training: none of the cycle's own keys."""

from __future__ import annotations

from pathlib import Path

import yaml
from omegaconf import OmegaConf

from mlscale.commands.retrain.cycle_settings import list_training_overrides

SETTINGS = Path(__file__).parents[4] / "conf" / "command" / "retrain.yaml"


def test_no_key_of_a_cycle_goes_to_its_training() -> None:
    keys = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    assert "approved" in keys
    typed = [f"{key}=1" for key in keys if key != "ref"]
    cfg = OmegaConf.create({"derived": {"overrides": [*typed, "optimizer.lr=0.01"]}})
    assert list_training_overrides(cfg) == ["optimizer.lr=0.01"]
