"""What an earlier mlscale left: its runs, checkpoint, versions, servable and sweep load, resume and are served."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mlscale.assembly.ready import compose_from_overrides
from mlscale.cli import main
from mlscale.config.composition.frozen import RENAMED_TARGETS, load_frozen
from mlscale.config.signatures.signatures import Signature, read_signature
from mlscale.runs.folder import RunFolder
from tests.serving import serving

EARLIER = Path(__file__).parent / "examples/earlier"
STEP = {"made": 29, "killed": 20}
"""The archives, each of another commit, and the step from which their run `cut` is resumed."""
LISTED = {"made": ("sweep of 2  ", 4, "  interrupted  "), "killed": ("", 2, "  elsewhere  ")}
TARGETS = """
    mlscale.compress.Int8 mlscale.data.Augment mlscale.data.BreastCancer mlscale.data.DatasetData mlscale.data.Diabetes
    mlscale.data.Digits mlscale.data.DigitsScenes mlscale.data.FashionMNIST
    mlscale.data.ImageFolder mlscale.data.PythonDocs mlscale.data.PythonSource mlscale.data.RandomCrop
    mlscale.data.TableFiles mlscale.data.TextFiles mlscale.data.TextTable mlscale.data.WebDataset
    mlscale.registry.LocalRegistry mlscale.registry.WandbRegistry
    mlscale.tasks.Classification mlscale.tasks.GPT mlscale.tasks.Language mlscale.tasks.MLP mlscale.tasks.Multilabel
    mlscale.tasks.NGrams mlscale.tasks.OneCycle mlscale.tasks.Regression mlscale.tasks.ResNet
    mlscale.tasks.Segmentation mlscale.tasks.TabularNet mlscale.tasks.TextCNN mlscale.tasks.UNet mlscale.tasks.ViT
    mlscale.tasks.Warmup mlscale.train.callbacks.Checkpoints mlscale.train.callbacks.DeviceStats
    mlscale.train.callbacks.EMA mlscale.train.callbacks.Freeze mlscale.train.callbacks.GradNorm
    mlscale.train.callbacks.LRMonitor mlscale.train.callbacks.LossSpike mlscale.train.callbacks.NonFinite
    mlscale.train.callbacks.Notify mlscale.train.callbacks.Progress mlscale.train.callbacks.Samples
    mlscale.train.callbacks.Stall mlscale.train.callbacks.Trace mlscale.train.callbacks.TrainMetrics
    mlscale.train.loggers.csv mlscale.train.loggers.mlflow mlscale.train.loggers.tensorboard mlscale.train.loggers.wandb
    mlscale.train.strategies.auto mlscale.train.strategies.ddp mlscale.train.strategies.single
"""
"""Every `_target_` of mlscale that a run folder of that release may name."""
INPUT = {"made": ("input", "FP32"), "killed": ("numbers", "FP64")}


@pytest.fixture(scope="module", params=STEP)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked archive; tests that write take a copy."""
    name: str = request.param
    folder = tmp_path_factory.mktemp("earlier") / name
    with tarfile.open(EARLIER / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def moved(made: Path, folder: Path) -> Path:
    """The folder that commands run in, with what was made: in another place than the one that made it."""
    for name in ("runs", "registry"):
        shutil.copytree(made / name, folder / name)
    return folder


def run_of(folder: Path, name: str) -> Path:
    """Return the folder of the run of this name."""
    (run,) = folder.glob(f"runs/*/{name}-*")
    return run


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights at the end of a run."""
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize("target", TARGETS.split())
def test_a_stored_target_is_found(target: str) -> None:
    assert isinstance(read_signature(RENAMED_TARGETS.get(target, target)), Signature)


def test_a_group_that_is_gone_is_left_out_of_a_stored_config(made: Path, moved: Path) -> None:
    """The run of the older archive was made with `monitor=default`, which collected its reference profile."""
    run = run_of(moved, "small")
    assert ("mlscale.monitor.collect.CollectReference" in (run / "config.yaml").read_text()) == (made.name == "made")
    assert "monitor" not in load_frozen(run)


def test_a_run_is_resumed_to_the_weights_that_it_would_have_had(
    made: Path, moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = run_of(moved, "cut")
    assert main(["runs", "resume", cut.name]) == 0
    printed = capsys.readouterr().out
    resumed_from = f"resumed from step {STEP[made.name]}"
    assert resumed_from in printed
    resumed, uninterrupted = weights_of(cut), weights_of(run_of(moved, "whole"))
    assert list(resumed) == list(uninterrupted)
    # The promise is of one kind of CPU, one torch and one number of threads: mlscale prints whether they are the same.
    tolerance = 0.0 if f"{resumed_from} bitwise identical" in printed else 1e-2
    for name, tensor in uninterrupted.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=tolerance, atol=tolerance, msg=name)


def test_a_setting_that_is_gone_is_left_out_where_a_run_has_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`every=auto` chose the interval of saves. Who types it is refused."""
    cfg = compose_from_overrides("train", ["+recipe=tabular", "trainer.max_epochs=1", "snapshot=false"])
    cfg.derived = dict.fromkeys(cfg.derived)
    OmegaConf.update(cfg, "callbacks.checkpoint", {"every": "auto", "mtbf_hours": None}, force_add=True)
    run = RunFolder.create(folder / "runs", "tabular", command="train", config_yaml=OmegaConf.to_yaml(cfg))
    assert main([f"resume={run.id}"]) == 0
    assert "callbacks.checkpoint.every=auto, of an earlier version, does nothing" in capsys.readouterr().err
    assert main(["evaluate", run.id]) == 0
    assert main(["+recipe=tabular", "callbacks.checkpoint.every=auto"]) == 2
    assert "callbacks.checkpoint.every_n_minutes=15" in capsys.readouterr().err


def test_runs_sweep_and_versions_are_listed(made: Path, moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "ls"]) == 0
    listed = capsys.readouterr().out
    sweep, done, cut = LISTED[made.name]
    assert sweep in listed
    assert [listed.count(status) for status in ("  done  ", cut)] == [done, 1]
    assert main(["versions", "ls"]) == 0
    listed = capsys.readouterr().out
    for version in ("small:v1  champion    val/accuracy 0.9211  servable", "small:v2  challenger  val/accuracy 0.9211"):
        assert version in listed


@pytest.mark.parametrize("reference", ["{run}", "small@challenger"])
def test_a_model_is_evaluated(reference: str, moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", reference.format(run=run_of(moved, "small").name)]) == 0
    assert "on val: accuracy 92.1 % [85.7, 95.8] of 114 samples" in capsys.readouterr().out


@pytest.mark.parametrize("servable", ["runs/*/small-*/servable", "registry/versions/small/v1/files"])
def test_a_servable_is_served(servable: str, made: Path, moved: Path) -> None:
    (path,) = moved.glob(servable)
    name, datatype = INPUT[made.name]
    sample = {"inputs": [{"name": name, "shape": [1, 30], "datatype": datatype, "data": [0.0] * 30}]}
    with serving(moved, path) as server:
        reply = server.ask("/v2/models/small/infer", sample)
    assert reply.status == 200, reply.body
    probabilities, *_ = [item for item in reply.json["outputs"] if item["name"] == "probabilities"]
    assert sum(probabilities["data"]) == pytest.approx(1, abs=1e-6)


def test_the_archive_is_small_and_names_no_machine(made: Path) -> None:
    assert (EARLIER / f"{made.name}.tar.xz").stat().st_size < 300_000
    texts = [path.read_text() for pattern in ("*.json", "*.yaml") for path in made.rglob(pattern)]
    assert len(texts) > 20
    assert not [text for text in texts for folder in ("/work", "/home", "/root", "/tmp") if folder in text]
