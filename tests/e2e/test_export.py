"""`mlscale export`: from a run to a folder that answers, without a change to the run."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from mlscale import commands
from mlscale.cli import main
from mlscale.errors import Exit, MLScaleError
from mlscale.export import measure_export, onnx_export
from mlscale.export.servable import PARITY, load
from mlscale.export.served_module import ServedModule
from mlscale.export.warmup import WARMUP, check_warmup, read_warmup
from mlscale.runs.folder import RunFolder
from mlscale.runs.initial_source import InitialWeights
from tests.conftest import runs_in
from tests.contract.test_documents import validate

TRAINED = ("+recipe=resnet", "trainer.max_epochs=2", "model.widths=[8,16]", "snapshot=false", "logger=none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> Path:
    """The folder of a run of a few seconds on digits."""
    place = tmp_path_factory.mktemp("export")
    result = commands.run_command("train", [*TRAINED, f"runs_dir={place}/runs", f"data.root={bundled}"])
    return Path(result.artifacts["run"])


def of(run: Path, *overrides: str) -> list[str]:
    return [f"ref={run}", f"runs_dir={run.parents[1]}", *overrides]


def test_a_run_becomes_a_servable(trained: Path, bundled: Path) -> None:
    evaluated = commands.run_command("evaluate", of(trained)).metrics["val/accuracy"]
    result = commands.run_command("export", of(trained))
    assert result.ok
    assert Path(result.artifacts["servable"]) == trained / "servable"
    assert result.metrics["torch_val/accuracy"] == pytest.approx(evaluated)
    assert result.metrics["onnx_val/accuracy"] == pytest.approx(evaluated)
    assert 0 < result.metrics["max_abs_error"] < 1e-4
    assert {f"batch_{size}_max_abs_error" for size in (1, 3, 32)} <= set(result.metrics)
    assert min(result.metrics[f"{engine}_cpu_ms"] for engine in ("onnx", "torch")) > 0
    assert f"{result.metrics['torch_latency_ratio']:.1f}× as long" in result.sentence

    servable = load(trained / "servable")
    validate("servable", servable.document)
    validate("reference", json.loads((servable.folder / "reference" / "profile.json").read_text()))
    run = RunFolder.open(trained)
    assert run.find_changed_artefacts() == []
    assert run.results["export"] == result.as_dict()
    assert servable.document["run"]["id"] == run.id
    assert servable.document["data_version"] == run.derived["data_version"]
    assert servable.document["licences"] == {"data": "CC-BY-4.0"}
    assert json.loads((servable.folder / PARITY).read_text())["samples"] == 360
    assert json.loads((servable.folder / PARITY).read_text())["encoder_difference"] is None
    assert check_warmup(servable, servable.folder / WARMUP) == []
    reference = servable.read_reference()
    assert reference.score is not None
    assert reference.score.name == "accuracy"
    assert reference.score.mean == pytest.approx(evaluated)
    assert {column.name for column in reference.columns} >= {"input.brightness", "input.sharpness", "output.label"}

    # A client that knows nothing but PNGs.
    pixels, labels = images(bundled)
    assert (np.array(servable.predict(pixels).labels) == labels).mean() == pytest.approx(evaluated)

    content = (servable.folder / "servable.yaml").read_bytes()
    commands.run_command("export", of(trained))
    assert (servable.folder / "servable.yaml").read_bytes() == content


def images(
    root: Path,
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], np.ndarray[tuple[int, ...], np.dtype[np.str_]]]:
    """The validation images, read by other means than mlscale's, (n, 1, 8, 8), and what they show."""
    import io
    import tarfile

    pixels, labels = [], []
    for shard in sorted((root / "digits-1" / "val").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                content = file.read()
                if member.name.endswith(".png"):
                    pixels.append(np.array(Image.open(io.BytesIO(content)))[None])
                else:
                    labels.append(content.decode())
    return np.stack(pixels), np.array(labels)


@pytest.mark.slow
def test_a_bound_that_does_not_hold_writes_nothing_and_ends_with_4(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["export", *of(trained, f"to={tmp_path}/new", "tolerance=1e-12", "output=json")])
    printed_text = json.loads(capsys.readouterr().out)
    assert (code, printed_text["ok"]) == (4, False)
    assert "is not exported: the outputs differ by" in printed_text["sentence"]
    assert printed_text["metrics"]["max_abs_error"] > 0
    assert "servable" not in printed_text["artifacts"]
    assert list(tmp_path.iterdir()) == []
    assert RunFolder.open(trained).results["export"]["ok"] is False


@pytest.mark.slow
def test_half_precision_is_compared_by_bounds_of_its_own(trained: Path, tmp_path: Path) -> None:
    result = commands.run_command("export", of(trained, "fp16=true", f"to={tmp_path}/half"))
    assert result.ok
    assert "as ONNX in fp16" in result.sentence
    assert 1e-6 < result.metrics["relative_error"] < 5e-3
    servable = load(tmp_path / "half")
    validate("servable", servable.document)
    assert servable.document["precision"] == "fp16"
    assert [port.dtype for port in servable.outputs] == ["float32"]
    assert check_warmup(servable, servable.folder / WARMUP) == []
    refused = commands.run_command("export", of(trained, "fp16=true", "fp16_tolerance=1e-7", f"to={tmp_path}/none"))
    assert not refused.ok
    assert not (tmp_path / "none").exists()
    with pytest.raises(MLScaleError, match="not both eight bits and half precision"):
        commands.run_command("export", of(trained, "fp16=true", "compressed=true", f"to={tmp_path}/none"))


def test_without_a_best_checkpoint_the_last_one_is_taken_and_reported(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / trained.parent.name / trained.name
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("best*", "servable"))
    result = commands.run_command("export", of(run, "samples=40"))
    assert Path(result.artifacts["checkpoint"]).name == "last.ckpt"
    assert "export  the run has no best checkpoint: the last one is taken" in capsys.readouterr().err
    with pytest.raises(MLScaleError, match="no checkpoint 'best'"):
        commands.run_command("export", of(run, "checkpoint=best"))  # what was typed is not replaced


def test_into_a_folder_of_its_own_once(trained: Path, tmp_path: Path) -> None:
    place = tmp_path / "models" / "digits"
    overrides = of(trained, f"to={place}", "checkpoint=last", "samples=40", "licences={model: Apache-2.0}")
    overrides.append("warmup=false")
    assert commands.run_command("export", overrides).metrics["samples"] == 40
    servable = load(place)
    assert servable.document["licences"] == {"data": "CC-BY-4.0", "model": "Apache-2.0"}
    assert servable.document["checkpoint"]["name"] == "last.ckpt"
    assert read_warmup(place / WARMUP) is None
    with pytest.raises(MLScaleError, match="there is something at digits already"):
        commands.run_command("export", overrides)


@pytest.mark.slow
def test_the_licence_of_the_weights_it_started_from_goes_along(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / "2026-01-01" / trained.name
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("servable*"))
    initial = InitialWeights(tmp_path / "x.safetensors", "0" * 64, licence="mit").build_init_document()
    RunFolder.open(copy).update_document(init=initial)
    assert commands.run_command("export", [str(copy), "samples=40"]).ok
    assert load(copy / "servable").document["licences"] == {"data": "CC-BY-4.0", "weights": "mit"}


@pytest.mark.parametrize(
    ("override", "what"),
    [
        (
            "data=webdataset data.train={digits}/val data.val={digits}/val",
            "the data is not what the run was trained on",
        ),
        ("data.image_size=16", "the data is not what the run was trained on"),
        ("checkpoint=bst", "no checkpoint 'bst'"),
        ("model.widths=[9]", "the checkpoint's weights do not fit the model"),
        ("split=test", "unknown key 'split'"),
    ],
)
def test_what_is_wrong_is_reported(trained: Path, bundled: Path, override: str, what: str, tmp_path: Path) -> None:
    words = override.replace("{digits}", f"{bundled}/digits-1").split(" ")
    with pytest.raises(MLScaleError, match=what):
        commands.run_command("export", of(trained, f"to={tmp_path}/new", *words))
    assert list(tmp_path.iterdir()) == []


def test_code_out_of_a_run_folder_is_not_believed(trained: Path, tmp_path: Path) -> None:
    config = trained / "config.yaml"
    before = config.read_text()
    config.write_text(before.replace("mlscale.tasks.ResNet", "subprocess.Popen"))
    try:
        with pytest.raises(MLScaleError, match=r"may not build subprocess\.Popen"):
            commands.run_command("export", of(trained, f"to={tmp_path}/new"))
    finally:
        config.write_text(before)


OWN = """
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

class Blobs(LightningDataModule):
    def loader(self, seed):
        generator = torch.Generator().manual_seed(seed)
        y = torch.arange(60) % 3
        return DataLoader(TensorDataset(torch.randn(60, 5, generator=generator) + 3 * y[:, None], y), batch_size=20)
    def train_dataloader(self):
        return self.loader(0)
    def val_dataloader(self):
        return self.loader(1)
"""


def test_a_data_module_of_ones_own(folder: Path) -> None:
    (folder / "blobs.py").write_text(OWN)
    common = ["task.num_classes=3", "trainer.max_steps=90", "optimizer.lr=0.02", "snapshot=false", "logger=none"]
    model = ["model=mlp", "model.num_classes=3", "optimizer=adamw"]
    assert main(["train", "data=none", "data._target_=blobs.Blobs", *model, *common]) == 0
    assert main(["export", "last"]) == 0
    servable = load(runs_in(folder)[0] / "servable")
    assert (servable.input.dtype, servable.input.shape) == ("float32", (-1, 5))
    assert servable.predict(np.full((1, 5), 6.0)).labels == ["2"]
    assert servable.document["raw_input"]["type"] == "tensor"


PLAIN = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class LitAutoEncoder(LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 8))
    def forward(self, x):
        return self.encoder(x)
    def training_step(self, batch, batch_idx):
        x, _ = batch
        loss = nn.functional.mse_loss(self.decoder(self.encoder(x)), x)
        return loss
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)

class LitClassifier(LitAutoEncoder):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

class Points(LightningDataModule):
    def __init__(self, classes=False):
        super().__init__()
        self.classes = classes
    def loader(self, seed):
        x = torch.randn(40, 8, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, torch.arange(40) % 3 if self.classes else x[:, 0]), batch_size=10)
    def train_dataloader(self):
        return self.loader(0)
    def val_dataloader(self):
        return self.loader(1)

class OwnLoaders(LitClassifier):
    def setup(self, stage):
        self.points = Points(classes=self.trainer.world_size == 1)
    def train_dataloader(self):
        return self.points.train_dataloader()
    def val_dataloader(self):
        return self.points.val_dataloader()

class Configured(LitClassifier):
    def __init__(self):
        LightningModule.__init__(self)
        self.encoder = None
    def configure_model(self):
        if self.encoder is None:
            self.encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

class SetUp(Configured):
    configure_model = LightningModule.configure_model
    def setup(self, stage):
        classes = 1 + int(max(y for _, y in self.trainer.datamodule.loader(0).dataset))
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, classes))
"""


@pytest.mark.parametrize(
    ("module", "classes", "kind", "line"),
    [
        (
            "LitAutoEncoder",
            "false",
            None,
            "answers are the tensors of forward, which gives something else than a number for each class",
        ),
        ("LitClassifier", "true", "classification", "answers are of classification, as forward gives a row of numbers"),
        ("OwnLoaders", None, "classification", "answers are of classification, as forward gives a row of numbers"),
    ],
)
def test_a_plain_module_is_served_and_what_is_missing_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], module: str, classes: str | None, kind: str | None, line: str
) -> None:
    (folder / "plain_of_export.py").write_text(PLAIN)
    words = [f"task._target_=plain_of_export.{module}", "data=none"]
    words += ["data._target_=plain_of_export.Points", f"data.classes={classes}"] if classes else []
    words += ["model=none", "optimizer=none", "scheduler=none", "metric=val_loss", "trainer.max_epochs=1"]
    assert main(["train", *words, "snapshot=false", "logger=none"]) == 0
    capsys.readouterr()
    assert main(["export", "last", "checkpoint=last"]) == 0
    printed = capsys.readouterr()
    assert f"the task states no type: {line}" in printed.out + printed.err
    servable = load(runs_in(folder)[0] / "servable")
    assert servable.document["task_type"] == kind
    assert check_warmup(servable, servable.folder / WARMUP) == []
    (answer,) = servable.task_type.build_answers(
        servable.predict_samples([np.zeros(8, np.float32)]).columns, servable.names
    )
    assert list(answer) == (["output"] if kind is None else ["label", "class", "confidence", "probabilities"])
    json.dumps(answer)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["Configured", "SetUp"])
def test_layers_that_hooks_make_are_rebuilt(folder: Path, capsys: pytest.CaptureFixture[str], module: str) -> None:
    (folder / "plain_of_export.py").write_text(PLAIN)
    words = [f"task._target_=plain_of_export.{module}", "data=none", "data._target_=plain_of_export.Points"]
    words += ["data.classes=true", "model=none", "optimizer=none", "metric=val_loss", "trainer.max_epochs=3"]
    assert main(["train", *words, "snapshot=false"]) == 0
    (run,) = runs_in(folder)
    trained = RunFolder.open(run).results["train"]["metrics"]
    evaluated = commands.run_command("evaluate", [str(run), "checkpoint=last"])
    assert evaluated.metrics["val_loss"] == pytest.approx(trained["val_loss"])
    assert main(["export", str(run), "checkpoint=last"]) == 0
    assert load(run / "servable").document["task_type"] == "classification"
    if module == "Configured":
        again = [*words, "snapshot=false", f"init_from={run}", "name=again", "trainer.max_steps=1"]
        assert main(["train", *again]) == 0
        assert main(["estimate", *words, "estimate.probe_seconds=1"]) == 0


def plant_weight_fault(content: bytes) -> tuple[bytes, str]:
    """Return the model with a convolution's weight doubled, and the name of the weight."""
    model = onnx.load_from_string(content)
    weights = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    weight = [item for item in model.graph.initializer if item.name in weights][1]
    weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight), weight.name))
    return model.SerializeToString(), weight.name


@pytest.mark.slow
def test_a_layer_that_differs_is_named_and_ends_with_exit_code_4(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names: list[str] = []

    def export_with_a_fault(model: ServedModule) -> bytes:
        content, name = plant_weight_fault(onnx_export.export_onnx(model))
        names.append(name)
        return content

    monkeypatch.setattr(measure_export, "export_onnx", export_with_a_fault)
    assert main(["export", str(trained), f"runs_dir={trained.parents[1]}", f"to={tmp_path}/s"]) == Exit.GATE
    printed = capsys.readouterr()
    assert "looking for the layer" in printed.err
    # A batch normalisation is folded into the convolution before it.
    block = names[0].removesuffix(".0.weight")
    assert f"the value that differs most is that of {block}.1 (Conv, node " in printed.out + printed.err
    assert not (tmp_path / "s").exists()
