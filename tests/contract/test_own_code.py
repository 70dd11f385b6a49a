"""A user's own classes, configuration and data, unchanged, from a folder of theirs."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlscale import cli

FIXTURE = Path(__file__).parent / "fixtures" / "own_code"
FAST = ("debug=fast", "callbacks=[checkpoint]", "snapshot=false")


@dataclass(frozen=True)
class Printed:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def mlscale(*words: str) -> Printed:
    """The command line in this process: what it does to the interpreter is undone by the fixture `folder`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(words)
    return Printed(code, out.getvalue(), err.getvalue())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder, stood in."""
    shutil.copytree(FIXTURE, tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "mine"), *sys.path])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = set(sys.modules)
    yield tmp_path / "mine"
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("my_pkg", "tiny", "broken", "focal", "hyper", "named"):
            del sys.modules[name]


def ended(folder: Path) -> str:
    """How the one run ended."""
    (manifest,) = folder.glob("runs/*/*/manifest.json")
    return str(json.loads(manifest.read_text())["status"])


FOCAL = """
import torch.nn.functional as F
from mlscale.tasks import Classification


class Focal(Classification):
    def training_step(self, batch, batch_idx):
        losses = F.cross_entropy(self(batch["x"]), batch["y"], reduction="none")
        return ((1 - (-losses).exp()) ** 2 * losses).mean()  # Lin et al. 2017, gamma = 2
"""


def test_a_loss_of_their_own_is_a_task_of_three_lines(folder: Path) -> None:
    (folder / "focal.py").write_text(FOCAL)
    losses = {}
    for task in ("mlscale.tasks.Classification", "focal.Focal"):
        printed = mlscale(
            "recipe=resnet", "model=mlp", f"task._target_={task}", "debug=fast", "snapshot=false", "output=json"
        )
        assert printed.code == 0, printed.err
        losses[task] = json.loads(printed.out)["metrics"]["train/loss"]
    # The same weights and the same batch: every sample's loss is weighed with the square of one minus its probability.
    plain, focal = losses.values()
    assert 0.5 * plain < focal < 0.95 * plain


def test_a_network_and_one_file(folder: Path) -> None:
    assert len((FIXTURE / "conf/model/tiny.yaml").read_text().splitlines()) <= 40
    printed = mlscale("model=tiny", *FAST)
    assert printed.code == 0, printed.err
    assert "code of this folder runs: tiny.py" in printed.err
    assert printed.err.count("code of this folder") == 1
    assert ended(folder) == "done"


def test_a_lightning_module_and_data_module_unchanged(folder: Path) -> None:
    printed = mlscale("task=own", "data=own", *FAST)
    assert printed.code == 0, printed.err
    taken = "my_pkg.parts.OwnModule takes none, or has its own"
    idle = f"model, optimizer have no effect: {taken}; model=none optimizer=none silences this"
    assert idle in printed.err.splitlines()
    lost = [line for line in printed.err.splitlines() if "OwnData" in line and "not promised" in line]
    assert len(lost) == 1
    assert "exact resume" in lost[0]
    assert printed.out.count("OwnData has batches of 64") == 1, "built once, with the batch of one device"
    assert "val/accuracy" in printed.out


TAKES_MODEL = ("task._target_=my_pkg.parts.TakesModel", "task.model._target_=torch.nn.Linear")


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`:UserWarning")
def test_a_module_whose_argument_is_called_model_takes_its_own(folder: Path) -> None:
    printed = mlscale(*TAKES_MODEL, "task.model.in_features=64", "task.model.out_features=7", "data=own", *FAST)
    assert printed.code == 0, printed.err
    assert "TakesModel has Linear and SGD" in printed.out
    assert "model has no effect" in printed.err
    assert (printed := mlscale("evaluate", "last")).code == 2
    assert "`validation_step()`" in printed.err
    printed = mlscale(*TAKES_MODEL, "data=own", *FAST)
    assert "task.model.out_features=<" in printed.err
    # By itself the argument is the group's object.
    printed = mlscale("model=mlp", "model.num_classes=7", "model.in_features=64", *TAKES_MODEL[:1], "data=own", *FAST)
    assert "TakesModel has MLP and SGD" in printed.out, printed.err


OTHER_NAME = """
import lightning as L
from my_pkg.parts import OwnModule


class Hyper(OwnModule):
    def __init__(self, width: int = 32, rate: float = 1e-2) -> None:
        super().__init__(width)
        self.save_hyperparameters()
        assert isinstance(self, L.LightningModule)
        assert isinstance(self, L.pytorch.LightningModule)


class Counts(L.Callback):
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(trainer, L.Trainer)
        print(f"Counts saw {trainer.global_step} steps")
"""


@pytest.mark.parametrize("devices", [1, 2])
def test_code_written_for_the_package_lightning(folder: Path, devices: int) -> None:
    """Nearly all public code imports `lightning`; mlscale depends on `pytorch-lightning` alone."""
    parts = folder / "my_pkg/parts.py"
    parts.write_text(parts.read_text().replace("import pytorch_lightning as pl", "import lightning.pytorch as pl"))
    (folder / "hyper.py").write_text(OTHER_NAME)
    printed = mlscale(
        "task._target_=hyper.Hyper", "task.width=16", "data._target_=my_pkg.parts.OwnData", "model=none",
        "optimizer=none", "scheduler=none", "snapshot=false", "trainer.max_epochs=2", f"trainer.devices={devices}",
        *(["strategy._target_=lightning.pytorch.strategies.DDPStrategy"] if devices > 1 else []),
        "+callbacks.counts._target_=hyper.Counts",
        "+callbacks.stop={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/loss}",
        "+logger.second={_target_:lightning.pytorch.loggers.CSVLogger,save_dir:logs}",
    )  # fmt: skip
    assert printed.code == 0, printed.err
    if devices == 1:  # what ranks print goes past `said`
        assert "Counts saw 8 steps" in printed.out
    (last,) = folder.glob("runs/*/*/checkpoints/last.ckpt")
    module = importlib.import_module("hyper").Hyper.load_from_checkpoint(last, weights_only=True)
    assert dict(module.hparams) == {"width": 16, "rate": 1e-2}
    state = torch.load(last, weights_only=True)
    assert any(name.startswith("EarlyStopping") for name in state["callbacks"])
    if devices == 1:  # by DDPStrategy it would leave a process group in this process
        evaluated = mlscale("evaluate", "last", "trust=true")
        assert evaluated.code == 0, evaluated.err


def test_a_module_with_its_own_loaders(folder: Path) -> None:
    printed = mlscale("task=own_loaders", "data=none", "model=none", "optimizer=none", *FAST)
    assert printed.code == 0, printed.err
    assert "no effect" not in printed.err
    assert "data=none: order and resume are whatever the task's own loaders give" in printed.err


def test_a_recipe_a_dataset_and_a_callback(folder: Path) -> None:
    printed = mlscale("recipe=own", "debug=fast", "snapshot=false")
    assert printed.code == 0, printed.err
    assert "256 to train, 100 to validate, 1×8×8, 7 classes" in printed.err
    assert "OwnCallback saw 1 steps" in printed.out
    assert "not promise" not in printed.err, "a dataset keeps mlscale's order"


def test_shadowing_is_printed(folder: Path) -> None:
    shutil.copy(folder / "conf/model/tiny.yaml", folder / "conf/model/resnet.yaml")
    printed = mlscale("task=own", "data=own", "model=none", *FAST)
    assert "conf/model/resnet.yaml replaces the shipped model=resnet" in printed.err


def test_a_folder_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "else/model").mkdir(parents=True)
    shutil.move(folder / "conf/model/tiny.yaml", tmp_path / "else/model/other.yaml")
    printed = mlscale("--config-dir", str(tmp_path / "else"), "model=other", *FAST)
    assert printed.code == 0, printed.err


def test_a_package_with_the_entry_point(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip leaves it: a package, and a dist-info that names the entry point."""
    site = tmp_path / "site"
    (site / "their_pkg/conf/model").mkdir(parents=True)
    (site / "their_pkg/__init__.py").touch()
    (site / "their_pkg/conf/__init__.py").touch()
    shutil.copy(folder / "conf/model/tiny.yaml", site / "their_pkg/conf/model/theirs.yaml")
    info = site / "their_pkg-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their_pkg\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mlscale.config_dirs]\ntheirs = their_pkg.conf\n")
    monkeypatch.syspath_prepend(str(site))
    assert metadata.version("their_pkg") == "1"
    printed = mlscale("model=theirs", *FAST)
    assert printed.code == 0, printed.err


@pytest.mark.parametrize(
    ("words", "raised", "where"),
    [
        (("task=own", "data=own", "task.fail=step"), "trouble of my own", "my_pkg/parts.py:{}, in training_step"),
        (("task=own", "data=own", "task.fail=init"), "no such layer", "task: my_pkg/parts.py:{}, in __init__"),
        (
            ("data=own_set", "model=tiny", "data.train.broken=5"),
            "cannot read sample",
            "my_pkg/parts.py:{}, in __getitem__",
        ),
    ],
    ids=["training_step", "__init__", "__getitem__"],
)
def test_an_error_of_theirs_names_its_line(folder: Path, words: tuple[str, ...], raised: str, where: str) -> None:
    printed = mlscale(*words, *FAST)
    lines = (folder / "my_pkg/parts.py").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if raised in line)
    assert printed.code == 1
    assert f"where: {where.format(number)}" in printed.err
    assert raised in printed.err
    assert "Traceback" not in printed.err


def test_the_traceback_is_shown_when_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSCALE_TRACEBACK", "1")
    printed = mlscale("task=own", "data=own", "task.fail=step", *FAST)
    assert "Traceback" in printed.err
    assert "trouble of my own" in printed.err


def test_a_module_that_does_not_import(folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_here\n\n\nclass Net:\n    pass\n")
    (folder / "conf/model/broken.yaml").write_text("_target_: broken.Net\n")
    printed = mlscale("model=broken", *FAST)
    assert printed.code == 1
    assert "where: model: broken.py:1" in printed.err
    assert "why:   ModuleNotFoundError: No module named 'nothing_here'" in printed.err


@pytest.mark.parametrize(
    ("set_by_hand", "metric", "mode"), [((), "val/loss", "min"), (("metric=val/accuracy",), "val/accuracy", "max")]
)
def test_a_metric_of_theirs(set_by_hand: tuple[str, ...], metric: str, mode: str, folder: Path) -> None:
    printed = mlscale("task=own", "data=own", *set_by_hand, *FAST)
    assert printed.code == 0, printed.err
    assert f"run: {metric} " in printed.out
    (run,) = folder.glob("runs/*/*/run.json")
    assert [json.loads(run.read_text())[key] for key in ("metric", "mode")] == [metric, mode]


def test_a_metric_that_nobody_logs(folder: Path) -> None:
    printed = mlscale("task=own", "data=own", "metric=val_loss", "mode=min", *FAST)
    assert printed.code == 2
    assert "no 'val_loss' was logged" in printed.err
    assert "fix:   metric=val/loss mode=min" in printed.err


def test_a_target_typed_in_place_of_the_options(folder: Path) -> None:
    printed = mlscale("task._target_=my_pkg.parts.OwnLoaders", "data=none", *FAST)
    assert printed.code == 0, printed.err
    left = "task: left out, for my_pkg.parts.OwnLoaders has none or its own: num_classes, label_smoothing"
    assert any(line.startswith(left) for line in printed.err.splitlines())
    printed = mlscale("task._target_=my_pkg.parts.OwnModule", "data._target_=my_pkg.parts.OwnData", *FAST)
    assert printed.code == 0, printed.err
    typed = ("model=none", "model._target_=tiny.Tiny", "model.pixels=64", "model.num_classes=${derived.num_classes}")
    assert mlscale(*typed, *FAST).code == 0


def jpeg(label: int, size: int = 16) -> bytes:
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[..., label % 3] = 30 * (label + 1)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def shard(path: Path, samples: int, classes: int = 7) -> None:
    """A tar of plain tarfile, as anybody may write one."""
    with tarfile.open(path, "w") as tar:
        for number in range(samples):
            for name, content in (("jpg", jpeg(number % classes)), ("cls", str(number % classes).encode())):
                member = tarfile.TarInfo(f"{number:04}.{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_images_of_theirs_in_colour(folder: Path) -> None:
    for label in range(7):
        (folder / f"img/class{label}").mkdir(parents=True)
        for number in range(10):
            (folder / f"img/class{label}/{number}.jpg").write_bytes(jpeg(label))
    printed = mlscale("data=imagefolder", "data.root=img", "data.image_size=16", "data.batch_size=14", *FAST)
    assert printed.code == 0, printed.err
    assert "63 to train, 7 to validate, 3×16×16, 7 classes" in printed.err


@pytest.mark.parametrize("spec", ["a {b}/t-{0,1}.tar", "a {b}/t-?.tar", "['a {b}/t-0.tar','a {b}/t-1.tar']", "a {b}"])
def test_shards_of_theirs_in_colour(folder: Path, spec: str) -> None:
    """A brace pattern, a glob, a list and a folder, in a folder whose name needs care."""
    (folder / "a {b}").mkdir()
    shard(folder / "a {b}/t-0.tar", 35)
    shard(folder / "a {b}/t-1.tar", 35)
    shard(folder / "v.tar", 14)
    printed = mlscale("data=webdataset", f"data.train={spec}", "data.val=v.tar", "data.batch_size=14", *FAST)
    assert printed.code == 0, printed.err
    assert "70 to train, 14 to validate, 3×16×16, 7 classes" in printed.err


def test_what_is_wrong_with_their_data(folder: Path) -> None:
    shard(folder / "t.tar", 14)
    shard(folder / "eight.tar", 16, classes=8)
    (folder / "not.tar").write_bytes(b"no tar at all" * 100)
    (folder / "empty").mkdir()
    for train, val, problems in [
        ("t.tar", "eight.tar", ["2 of 16 samples have a label that the training data does not have"]),
        ("none.tar", "empty", ["the path 'none.tar' does not exist", "the folder 'empty' holds no shard"]),
        ("not.tar", "t.tar", ["the shard 'not.tar' is not a tar file"]),
        ("", "t.tar", ["no shards are named"]),
    ]:
        printed = mlscale("data=webdataset", f"data.train={train}", f"data.val={val}", *FAST)
        assert printed.code == 2
        assert all(problem in printed.err for problem in problems), printed.err
    assert not (folder / "runs").exists(), "a refused config leaves nothing"


def test_a_tenth_of_little_is_a_batch(folder: Path) -> None:
    printed = mlscale("model=tiny", "debug=limit", "snapshot=false")
    assert printed.code == 0, printed.err


def test_one_batch_is_learnt_by_heart(folder: Path) -> None:
    printed = mlscale("model=tiny", "debug=overfit", "snapshot=false", "output=json", "callbacks=[checkpoint,metrics]")
    assert printed.code == 0, printed.err
    assert json.loads(printed.out)["metrics"]["best_train/loss"] < 0.01


def test_settings_of_theirs_that_are_called_as_ours_keep_their_values(folder: Path) -> None:
    """Digits' `workers: auto` and `root: null` are not meant for somebody else's data."""
    (folder / "named.py").write_text(
        "from my_pkg.parts import OwnData\n\n\nclass Named(OwnData):\n"
        "    def __init__(self, batch_size=16, root='~/mine', workers=2):\n"
        "        super().__init__(batch_size)\n"
        "        print(f'root {root}, workers {workers}')\n"
    )
    words = ("task._target_=my_pkg.parts.OwnModule", "data._target_=named.Named", *FAST)
    printed = mlscale(*words)
    assert printed.code == 0, printed.err
    assert "root ~/mine, workers 2" in printed.out
    assert "OwnData has batches of 64" in printed.out
    assert "root 7, workers 3" in mlscale(*words, "data.root=7", "data.workers=3").out


def test_colour_networks_and_grey_images(folder: Path) -> None:
    printed = mlscale("model=resnet18", *FAST)
    assert printed.code == 2
    assert "torchvision.models.resnet18 takes images of 3 channels, the data has 1" in printed.err


@pytest.mark.parametrize(
    ("metric", "reported", "kept"),
    [
        ((), "", ["best.ckpt", "last.ckpt"]),
        (("metric=val/accuracy",), "no validation, so no val/accuracy to pick a best checkpoint by", ["last.ckpt"]),
    ],
)
def test_without_validation(metric: tuple[str, ...], reported: str, kept: list[str], folder: Path) -> None:
    limits = ("trainer.max_epochs=1", "trainer.limit_val_batches=0", "callbacks=[checkpoint,metrics]")
    printed = mlscale("model=tiny", *limits, *metric)
    assert printed.code == 0, printed.err
    assert reported in printed.err
    assert "ModelCheckpoint" not in printed.err
    assert sorted(path.name for path in folder.glob("runs/*/*/checkpoints/*")) == kept
