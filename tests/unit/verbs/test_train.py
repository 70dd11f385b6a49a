"""What `mlscale train` concludes from what rank 0 left."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.verbs.train import conclude

FIT = {
    "best": None,
    "metrics": {"val/accuracy": 0.5},
    "samples": None,
    "train_seconds": 0.0,
    "seconds": 1.0,
    "steps": 10,
    "resumed_step": 10,
    "exact": True,
}


@pytest.mark.parametrize(("peak", "told"), [(1 << 20, True), (0, False)])
def test_memory_is_told_where_it_was_measured(tmp_path: Path, peak: int, told: bool) -> None:
    """A fit that goes on where nothing is left to do measures nothing."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/fit.json").write_text(json.dumps({**FIT, "peak_memory_bytes": peak}))
    cfg = OmegaConf.create({"name": "run", "metric": "val/accuracy"})
    folder: Any = SimpleNamespace(path=tmp_path)
    assert ("peak_memory_bytes" in conclude(cfg, folder).metrics) is told
