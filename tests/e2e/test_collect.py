"""`monitor=default`: the run collects its reference profile itself, changes nothing by it, and export takes it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mlscale import commands
from mlscale.export import collected_profile as collected
from mlscale.export.servable import load
from mlscale.runs.checkpoint_files.checkpoint_digest import read_content_digest
from mlscale.runs.folder import RunFolder
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file as load_checkpoint

WORDS = ("+recipe=resnet", "model.widths=[4]", "trainer.max_epochs=2", "snapshot=false", "logger=none")
INPUTS = ("sample_mean", "sample_std", "value_edges", "value_counts", "label_counts")


def train(bundled: Path, *overrides: str) -> RunFolder:
    result = commands.run_command("train", [*WORDS, f"data.root={bundled}", *overrides])
    return RunFolder.open(result.artifacts["run"])


@pytest.mark.slow
def test_a_run_collects_what_export_would(folder: Path, bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, run = train(bundled), train(bundled, "monitor=default")
    ours, theirs = (load_checkpoint(each.path / "checkpoints/last.ckpt")["state_dict"] for each in (run, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    metrics, before = (each.results["train"]["metrics"] for each in (run, plain))
    assert metrics["reference_samples"] == 360
    assert all(metrics[name] == before[name] for name in ("best_val/accuracy", "val/loss", "train/loss", "steps"))
    assert "reference/profile.npz" in (run.manifest or {})["artefacts"]

    mine = collected.read_collected_profile(run.path)
    assert mine.about["checkpoint"]["sha256"] == read_content_digest(run.path / "checkpoints/best.ckpt")
    assert mine.about["accuracy"] == pytest.approx(metrics["best_val/accuracy"])
    commands.run_command("export", [str(plain.path)])
    from_export = load(plain.path / "servable").reference()
    for name in INPUTS:
        assert np.array_equal(mine.arrays[name], from_export.arrays[name]), name
    assert mine.arrays["class_counts"].tolist() == from_export.arrays["class_counts"].tolist()
    np.testing.assert_allclose(mine.arrays["probability_mean"], from_export.arrays["probability_mean"], atol=1e-6)
    np.testing.assert_allclose(mine.arrays["sample_confidence"], from_export.arrays["sample_confidence"], atol=1e-5)

    capsys.readouterr()
    commands.run_command("export", [str(run.path), "samples=40"])
    assert "reference profile: the run's own, 360 samples" in capsys.readouterr().err
    exported = load(run.path / "servable").reference()
    assert exported.about == mine.about
    assert all(np.array_equal(exported.arrays[name], mine.arrays[name]) for name in mine.arrays)
    if read_content_digest(run.path / "checkpoints/last.ckpt") != read_content_digest(
        run.path / "checkpoints/best.ckpt"
    ):
        commands.run_command("export", [str(run.path), f"to={folder}/last", "checkpoint=last", "samples=40"])
        assert "reference profile: of the comparison, 40 samples" in capsys.readouterr().err
        assert load(folder / "last").reference().about.get("checkpoint") is None


def test_a_profile_of_fewer_samples_than_are_compared_is_not_taken(
    folder: Path, bundled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(bundled, "debug=fast", "monitor=default")
    assert collected.read_collected_profile(run.path).about["samples"] == 64
    commands.run_command("export", [str(run.path)])
    assert "reference profile: of the comparison, 360 samples" in capsys.readouterr().err


@pytest.mark.slow
def test_two_ranks_see_what_one_sees(folder: Path, bundled: Path) -> None:
    one, two = (
        collected.read_collected_profile(train(bundled, "monitor=default", f"trainer.devices={n}").path) for n in (1, 2)
    )
    assert one.about["samples"] == two.about["samples"] == 360
    for name in INPUTS:
        assert np.array_equal(one.arrays[name], two.arrays[name]), name
    assert two.arrays["class_counts"].sum() == two.arrays["confidence_counts"].sum() == 360
    np.testing.assert_allclose(one.arrays["probability_mean"], two.arrays["probability_mean"], atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "bf16_true"])
def test_inputs_are_exact_in_any_precision(folder: Path, bundled: Path, precision: str) -> None:
    run = train(bundled, "debug=fast", "monitor=default", f"precision={precision}")
    found = collected.read_collected_profile(run.path)
    whole = train(bundled, "debug=fast", "monitor=default")
    for name in INPUTS:
        assert np.array_equal(found.arrays[name], collected.read_collected_profile(whole.path).arrays[name]), name
    assert found.about["predictions"]["precision"] != "32-true"


@pytest.mark.slow
def test_both_join_one_run(folder: Path, bundled: Path) -> None:
    run = train(bundled, "monitor=default", "compress=int8", "compress.int8.min_speedup=0", "trainer.devices=2")
    metrics = run.results["train"]["metrics"]
    assert (metrics["reference_samples"], metrics["int8_kept"]) == (360, 1)
    assert run.find_changed_artefacts() == []
