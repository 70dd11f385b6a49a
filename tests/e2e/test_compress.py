"""`mlscale compress` and `compress=int8`: really int8, really measured, kept only where it pays, and exported then."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mlscale import commands
from mlscale.cli import main
from mlscale.errors import Exit, MLScaleError
from mlscale.export.servable import PARITY, load
from mlscale.report import Result
from mlscale.runs.folder import RunFolder
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file as load_checkpoint
from tests.contract.test_documents import validate
from tests.e2e.test_export import images, of

# Wide enough that int8 pays: 300,000 parameters of convolutions on images of 8×8.
WIDE = ("+recipe=resnet", "model.widths=[64,128]", "trainer.max_epochs=2", "snapshot=false", "logger=none")
TINY = ("+recipe=resnet", "model.widths=[4]", "trainer.max_epochs=2", "snapshot=false", "logger=none")
INT8 = "compress=int8"


def train(place: Path, bundled: Path, *overrides: str) -> Path:
    result = commands.run_command("train", [*overrides, f"runs_dir={place}/runs", f"data.root={bundled}"])
    return Path(result.artifacts["run"])


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> tuple[Path, Result]:
    """A run without compression, and what the verb makes of it."""
    run = train(tmp_path_factory.mktemp("compress"), bundled, *WIDE)
    # One sample of 360 that is lost may be 1.2 % of others: with the default bound that would keep fp32.
    return run, commands.run_command("compress", of(run, INT8, "compress.int8.max_accuracy_drop=0.05"))


@pytest.fixture
def wide(compressed: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of that run, compressed."""
    return shutil.copytree(compressed[0], tmp_path / "runs" / "2026-01-05" / compressed[0].name)


def test_a_wide_network_is_faster_and_is_kept(compressed: tuple[Path, Result]) -> None:
    run, result = compressed
    figures, printed = result.metrics, result.sentence
    assert result.ok
    assert figures["kept"] == 1
    assert 1.05 <= figures["speedup_low"] <= figures["speedup"] <= figures["speedup_high"]
    assert figures["speedup"] == pytest.approx(figures["fp32_cpu_ms"] / figures["int8_cpu_ms"], rel=0.5)
    assert figures["size_ratio"] > 3
    assert (figures["samples"], figures["calibration_samples"]) == (360, 256)
    paired = figures["right_in_fp32_alone"], figures["right_in_int8_alone"]
    assert figures["accuracy_drop"] == pytest.approx((paired[0] - paired[1]) / 360)
    assert figures["accuracy_drop"] == pytest.approx(figures["fp32_val/accuracy"] - figures["int8_val/accuracy"])
    assert "is kept" in printed
    assert f"of 360 samples {paired[0]} are right in fp32 alone and {paired[1]} in int8 alone" in printed
    validate("compressed", json.loads((run / "compressed" / "compressed.json").read_text()))
    assert RunFolder.open(run).find_changed_artefacts() == []
    assert RunFolder.open(run).results["compress"] == result.as_dict()


@pytest.mark.slow
def test_it_really_computes_in_eight_bits_and_is_made_alike_twice(wide: Path) -> None:
    made = (wide / "compressed" / "model.onnx").read_bytes()
    graph = onnx.load_from_string(made).graph
    kinds = {item.name: item.data_type for item in graph.initializer}
    assert {kinds[item.name] for item in graph.initializer if len(item.dims) == 4} == {onnx.TensorProto.INT8}
    assert onnx.TensorProto.UINT8 in kinds.values()
    commands.run_command("compress", of(wide, INT8))
    assert (wide / "compressed" / "model.onnx").read_bytes() == made


def test_what_was_kept_is_exported(compressed: tuple[Path, Result], wide: Path, bundled: Path) -> None:
    figures = compressed[1].metrics
    exported = commands.run_command("export", of(wide))
    assert exported.ok
    assert "as ONNX in int8" in exported.sentence
    assert exported.metrics["onnx_val/accuracy"] == pytest.approx(figures["int8_val/accuracy"])
    assert exported.metrics["torch_val/accuracy"] == pytest.approx(figures["fp32_val/accuracy"])
    assert exported.metrics["max_abs_error"] > 1e-3  # it is reported, and no bound in eight bits
    servable = load(wide / "servable")
    validate("servable", servable.document)
    assert (servable.folder / "model.onnx").read_bytes() == (wide / "compressed" / "model.onnx").read_bytes()
    assert servable.document["precision"] == "int8"
    assert servable.document["compression"]["calibration"] == {"split": "train", "samples": 256}
    assert json.loads((servable.folder / PARITY).read_text())["agreement"] == exported.metrics["agreement"] > 0.95
    pixels, labels = images(bundled)
    right = (np.array(servable.predict(pixels).labels) == labels).mean()
    assert right == pytest.approx(figures["int8_val/accuracy"])


def test_an_int8_model_that_is_not_what_it_was_is_not_exported(wide: Path, tmp_path: Path) -> None:
    (wide / "compressed" / "model.onnx").write_bytes(b"another")
    with pytest.raises(MLScaleError, match="the compressed model is corrupt or altered"):
        commands.run_command("export", of(wide, f"to={tmp_path}/new"))


@pytest.mark.slow
def test_fp32_is_exported_on_request_and_from_another_checkpoint(
    wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.run_command("export", of(wide, f"to={tmp_path}/fp32", "compressed=false"))
    document = load(tmp_path / "fp32").document
    assert (document["precision"], document["compression"]) == ("fp32", None)
    capsys.readouterr()
    commands.run_command("export", of(wide, f"to={tmp_path}/last", "checkpoint=last"))
    assert "no compressed model: the run's is of another checkpoint than last.ckpt" in capsys.readouterr().err
    assert load(tmp_path / "last").document["precision"] == "fp32"
    with pytest.raises(MLScaleError, match=r"no compressed model of last\.ckpt") as reported:
        commands.run_command("export", of(wide, f"to={tmp_path}/none", "checkpoint=last", "compressed=true"))
    assert reported.value.exit == Exit.GATE


@pytest.mark.slow
def test_a_tiny_network_is_slower_and_says_so(
    tmp_path: Path, bundled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path, bundled, *TINY)
    result = commands.run_command("compress", of(run, INT8))
    assert (result.ok, result.metrics["kept"]) == (True, 0)
    assert result.metrics["speedup_low"] < 1.05
    assert "is not kept, fp32 stays: " in result.sentence
    assert f"at least {result.metrics['speedup_low']:.2f}× as fast as fp32 (" in result.sentence
    assert "where 1.05× is wanted" in result.sentence
    assert json.loads((run / "compressed" / "compressed.json").read_text())["kept"] is False
    exported = commands.run_command("export", of(run))
    assert "as ONNX in fp32" in exported.sentence
    assert "no compressed model: it was not kept: " in capsys.readouterr().err
    assert load(run / "servable").document["precision"] == "fp32"
    assert main(["compress", *of(run, INT8, "compress.int8.required=true")]) == Exit.GATE


@pytest.mark.slow
def test_too_great_a_loss_of_accuracy_is_not_kept(wide: Path) -> None:
    result = commands.run_command("compress", of(wide, INT8, "compress.int8.max_accuracy_drop=0"))
    assert (result.ok, result.metrics["kept"]) == (True, 0)
    assert "accuracy falls by" in result.sentence


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_in_a_run_it_changes_nothing_and_is_reported(folder: Path, bundled: Path, devices: int) -> None:
    words = [*TINY, "trainer.max_epochs=1", f"trainer.devices={devices}", f"data.root={bundled}"]
    plain = commands.run_command("train", words)
    kept = ("compress.int8.min_speedup=0", "compress.int8.max_accuracy_drop=0.2")  # after an epoch it guesses yet
    result = commands.run_command("train", [*words, INT8, *kept])
    before, after = (
        load_checkpoint(Path(each.artifacts["run"]) / "checkpoints/last.ckpt")["state_dict"] for each in (plain, result)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name in ("best_val/accuracy", "val/loss", "train/loss", "steps"):
        assert result.metrics[name] == plain.metrics[name]
    assert result.metrics["int8_kept"] == 1
    assert "; int8 kept: " in result.sentence
    run = RunFolder.open(result.artifacts["run"])
    assert run.find_changed_artefacts() == []
    assert "compressed/model.onnx" in (run.manifest or {})["artefacts"]
    assert run.results["compress"]["metrics"]["int8_val/accuracy"] == result.metrics["int8_val/accuracy"]
    assert run.results["compress"]["overrides"] == run.run["overrides"]
    if devices == 2:
        return
    # Through the same code: what the verb makes of the same checkpoint is the same to the byte, and the seal holds.
    made = (run.path / "compressed" / "model.onnx").read_bytes()
    commands.run_command("compress", [str(run.path), INT8, "compress.int8.min_speedup=0"])
    assert (run.path / "compressed" / "model.onnx").read_bytes() == made
    assert run.find_changed_artefacts() == []
    assert "as ONNX in int8" in commands.run_command("export", [str(run.path)]).sentence


def test_a_run_that_requires_it_and_does_not_get_it_ends_with_4(folder: Path) -> None:
    required = [INT8, "compress.int8.required=true", "compress.int8.min_speedup=1000"]
    assert main(["train", *TINY, "debug=fast", *required]) == Exit.GATE


def test_what_it_needs_is_asked_for_before_the_first_step(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", *TINY, "debug=fast", "callbacks=none", INT8]) == Exit.USER
    assert "there will be no checkpoint to compress" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("mlscale.export.required_extras.find_spec", lambda name: None if name == "onnxscript" else True)
    assert main(["train", *TINY, "debug=fast", INT8]) == Exit.ENVIRONMENT
    printed = capsys.readouterr()
    assert "pip install 'mlscale[compress]'" in printed.err
    assert "epoch 1" not in printed.err + printed.out


MINE = """
from torch import nn

class TooOdd(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.linear = nn.Linear(64, num_classes)
    def forward(self, x):
        x = x.flatten(1)
        return self.linear(x if len(x) > 1000 else x)
"""


def test_what_can_not_be_compressed_is_refused_before_the_first_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "odd.py").write_text(MINE)
    monkeypatch.syspath_prepend(folder)
    odd = ["model=none", "model._target_=odd.TooOdd", "model.num_classes=10", "scheduler=none", INT8]
    with pytest.raises(MLScaleError, match="the model can't be exported to ONNX") as refused:
        commands.run_command("train", ["+recipe=resnet", "debug=fast", "snapshot=false", *odd])
    assert refused.value.fix.endswith("compress=none, which trains without it")
    assert list((folder / "runs").rglob("*.ckpt")) == []


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("seed=1", "nothing to compress by is chosen"),
        (
            "compress.mine={_target_: pytorch_lightning.callbacks.Timer}",
            r"compress\.mine works in a training run alone",
        ),
        ("checkpoint=bst " + INT8, "no checkpoint 'bst'"),
        ("compress.int8.calibration_samples=0 " + INT8, "calibration_samples. must be int ≥ 1"),
        ("compress.int8.method=fast " + INT8, "method"),
        ("compress=int4", "int4"),
    ],
)
def test_what_is_wrong_is_reported(wide: Path, override: str, what: str) -> None:
    with pytest.raises(MLScaleError, match=what):
        commands.run_command("compress", of(wide, *override.split(" ") if "{" not in override else [override]))
