"""The vision tasks from end to end: a transformer, labels and masks are exported with parity."""

from pathlib import Path

import pytest

from mlscale import commands

FAST = ["debug=fast", "trainer.accelerator=cpu", "snapshot=false"]


@pytest.mark.slow
def test_a_transformer_is_exported_with_parity(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    trained = commands.run_command(
        "train", ["recipe=vit", "trainer.max_epochs=2", "trainer.accelerator=cpu", "snapshot=false"]
    )
    exported = commands.run_command("export", [trained.artifacts["run"]])
    assert exported.ok
    assert exported.metrics["agreement"] == 1
    assert exported.metrics["max_abs_error"] < 1e-4
    assert {f"batch_{size}_max_abs_error" for size in (1, 3, 32)} <= set(exported.metrics)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "metric"), [("multilabel", "val/map"), ("segmentation", "val/miou")])
def test_other_tasks_train_evaluate_export_and_compress(folder: Path, recipe: str, metric: str) -> None:
    trained = commands.run_command("train", [f"recipe={recipe}", *FAST])
    run = trained.artifacts["run"]
    measured = commands.run_command("evaluate", [str(run)])
    assert 0 <= measured.metrics[metric] <= 1
    exported = commands.run_command("export", [str(run)])
    assert exported.metrics["agreement"] == 1
    assert exported.metrics["max_abs_error"] < 1e-4
    compressed = commands.run_command("compress", [str(run), "compress=int8"])
    assert compressed.metrics["size_ratio"] > 3


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["vit", "multilabel", "segmentation"])
def test_memory_is_reported_without_a_step(folder: Path, recipe: str) -> None:
    found = commands.run_command("estimate", [f"recipe={recipe}", "trainer.accelerator=cpu"])
    assert found.ok
    assert "traced" in found.details["memory_by"]
