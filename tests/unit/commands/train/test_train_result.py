"""What `mlscale train` concludes from what rank 0 left."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.commands.train.train_result import build_train_result
from mlscale.runs.resume_plan import ResumePlan

FIT: dict[str, Any] = {
    "best": None,
    "metrics": {"val/accuracy": 0.5},
    "samples": None,
    "train_seconds": 0.0,
    "seconds": 1.0,
    "steps": 10,
    "resumed_step": 10,
    "inexact": [],
}


@pytest.mark.parametrize(("peak", "reported"), [(1 << 20, True), (0, False)])
def test_memory_is_reported_where_it_was_measured(tmp_path: Path, peak: int, reported: bool) -> None:
    """A fit that goes on where nothing is left to do measures nothing."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/fit.json").write_text(json.dumps({**FIT, "peak_memory_bytes": peak}))
    cfg = OmegaConf.create({"name": "run", "metric": "val/accuracy"})
    folder: Any = SimpleNamespace(path=tmp_path)
    assert ("peak_memory_bytes" in build_train_result(cfg, folder).metrics) is reported


@pytest.mark.parametrize("best", [None, ["best.ckpt", None]])
def test_a_metric_that_is_no_number_ends_no_run(tmp_path: Path, best: list[Any] | None) -> None:
    """JSON has none: what was logged as NaN is null in what rank 0 left."""
    (tmp_path / "results").mkdir()
    fit = {**FIT, "peak_memory_bytes": 1, "best": best, "metrics": {"val/accuracy": None, "val/auroc": None}}
    (tmp_path / "results/fit.json").write_text(json.dumps(fit))
    cfg = OmegaConf.create({"name": "run", "metric": "val/accuracy"})
    folder: Any = SimpleNamespace(path=tmp_path)
    result = build_train_result(cfg, folder)
    assert math.isnan(result.metrics["val/auroc"])
    assert result.as_dict()["metrics"]["val/auroc"] is None
    assert "val/auroc" in result.format_text()
    assert result.sentence.startswith("run: val/accuracy nan")


def test_other_batches_are_not_called_the_same_samples(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    fit = {**FIT, "peak_memory_bytes": 1, "inexact": ["processes 2 before, 1 now"]}
    (tmp_path / "results/fit.json").write_text(json.dumps(fit))
    cfg = OmegaConf.create({"name": "run", "metric": "val/accuracy"})
    folder: Any = SimpleNamespace(path=tmp_path)
    other = "other batches, as my.Data does not promise the same ones"
    sentence = build_train_result(cfg, folder, ResumePlan(folder, None, 10, (), other_batches=other)).sentence
    assert sentence.endswith(f"; resumed from step 10 (processes 2 before, 1 now) with {other}")
    assert "the same samples" in build_train_result(cfg, folder).sentence


@pytest.mark.parametrize("auc", [0.75, None])
def test_the_shares_of_rare_classes_are_named_at_the_end(tmp_path: Path, auc: float | None) -> None:
    (tmp_path / "results").mkdir()
    fit = {**FIT, "peak_memory_bytes": 1, "metrics": {"val/auc": auc}, "resumed_step": None}
    (tmp_path / "results/fit.json").write_text(json.dumps(fit))
    derived = {"class_counts": [40, 960], "class_names": ["ja", "nein"]}
    task = {"_target_": "mlscale.tasks.Classification"}
    cfg = OmegaConf.create({"name": "run", "metric": "val/auc", "task": task, "derived": derived})
    folder: Any = SimpleNamespace(path=tmp_path)
    sentence = build_train_result(cfg, folder).sentence
    assert sentence.endswith("after 10 steps; 4.0 % ja; always nein would reach 96.0 % of the training samples")
    assert ("validation has one class alone" in sentence) is (auc is None)
