"""Checkpoints through Lightning: committed, verified, weights-only, and a full disk that ends no training."""

import contextlib
import re
import resource
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file
from tests.unit.fitting import At, Loader, batches, classifier, fit, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty", "ignore:Be aware that when")


def checkpointing(tmp_path: Path, io: VerifiedCheckpointIO | None = None, **arguments: Any) -> pl.Trainer:
    """A trainer that saves through ours."""
    return trainer(
        enable_checkpointing=True, plugins=[io or VerifiedCheckpointIO()], default_root_dir=tmp_path, **arguments
    )


def record(path: Path) -> CheckpointRecord:
    """What a checkpoint whose digest holds says of itself."""
    checked = verify_checkpoint(path)
    assert checked.state == "ok", path
    assert checked.record is not None
    return checked.record


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within it no file grows beyond `size` bytes: the system refuses the write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def model_checkpoint(tmp_path: Path, **arguments: Any) -> ModelCheckpoint:
    """As a user would name it; by its metric each is better than the one before."""
    return ModelCheckpoint(**{"dirpath": tmp_path / "kept", "monitor": "step", "mode": "max", **arguments})


def test_a_users_own_model_checkpoint(tmp_path: Path) -> None:
    callback = model_checkpoint(tmp_path, filename="{epoch}-{step}", save_last=True, save_top_k=2)
    run = checkpointing(tmp_path, callbacks=[callback], max_epochs=4)
    fit(run, classifier(), batches(5))
    kinds = {path.name: record(path).kind for path in (tmp_path / "kept").iterdir()}
    assert sorted(kinds.values()) == ["best", "best", "last"]
    assert kinds["last.ckpt"] == "last"
    best = record(Path(callback.best_model_path))
    assert (best.metric, best.value) == ("step", 20)
    assert (best.step, best.epoch) == (20, 3)
    assert best.resumable
    assert not list(tmp_path.rglob(".*"))


def test_periodic_and_weights_only_ones(tmp_path: Path) -> None:
    periodic = ModelCheckpoint(tmp_path / "periodic", filename="{step}", every_n_train_steps=2, save_top_k=-1)
    weights = ModelCheckpoint(tmp_path / "weights", save_weights_only=True)
    fit(checkpointing(tmp_path, callbacks=[periodic, weights]), classifier(), batches(5))
    assert [found.path.name for found in list_checkpoint_files(tmp_path / "periodic")] == ["step=2.ckpt", "step=4.ckpt"]
    assert {record(path).kind for path in (tmp_path / "periodic").iterdir()} == {"periodic"}
    (alone,) = (tmp_path / "weights").iterdir()
    assert not record(alone).resumable


def test_a_fit_goes_on_from_one(tmp_path: Path) -> None:
    first = classifier(optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    run = checkpointing(tmp_path, callbacks=[model_checkpoint(tmp_path, filename="best", save_last=True)])
    fit(run, first, batches(4))
    second = classifier(optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    again = checkpointing(tmp_path, max_epochs=2, callbacks=[])
    again.fit(second, Loader(batches(4)), Loader(batches(1)), ckpt_path=str(tmp_path / "kept/last.ckpt"))
    whole = classifier(optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    fit(trainer(max_epochs=2), whole, batches(4))
    assert torch.equal(second.state_dict()["model.weight"], whole.state_dict()["model.weight"])
    assert again.global_step == 8


@pytest.mark.parametrize("damage", ["torn", "altered"])
def test_a_damaged_one_is_refused_and_the_one_before_named(tmp_path: Path, damage: str) -> None:
    callback = model_checkpoint(tmp_path, filename="{epoch}", save_top_k=2)
    fit(checkpointing(tmp_path, callbacks=[callback], max_epochs=2), classifier(), batches(4))
    path = tmp_path / "kept/epoch=1.ckpt"
    content = path.read_bytes()
    path.write_bytes(content[:-100] if damage == "torn" else content[:2000] + b"\xff" + content[2001:])
    with pytest.raises(MLScaleError, match="can't be used") as caught:
        checkpointing(tmp_path).fit(classifier(), Loader(batches(4)), Loader(batches(1)), ckpt_path=str(path))
    assert caught.value.where == str(path)
    assert str(tmp_path / "kept/epoch=0.ckpt") in caught.value.fix
    path.unlink()
    with pytest.raises(MLScaleError, match="can't be read"):
        load_checkpoint_file(path)


class Odd:
    """Not a plain value."""


class KeepsObjects(pl.Callback):
    def state_dict(self) -> dict[str, Any]:
        return {"odd": Odd()}


def test_other_types_are_reported_when_saved_and_refused_when_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = checkpointing(tmp_path, callbacks=[KeepsObjects(), model_checkpoint(tmp_path, filename="best")], max_epochs=2)
    fit(run, classifier(), batches(4))
    reported = capsys.readouterr().err
    assert reported.count("loaded again") == 1
    assert "warning   best.ckpt can't be loaded again" in reported
    assert "test_lightning_io.Odd" in reported
    assert record(tmp_path / "kept/best.ckpt").resumable
    with pytest.raises(MLScaleError, match="more than tensors and plain values") as caught:
        load_checkpoint_file(tmp_path / "kept/best.ckpt")
    assert "tests.unit.train.checkpoint.test_lightning_io.Odd" in caught.value.why
    assert "save_hyperparameters(ignore=" in caught.value.fix


@pytest.mark.parametrize(
    ("made", "read"),
    [
        (np.float64(0.1), 0.1),
        (
            {"base_lrs": [np.float64(0.1)], "last": (np.int64(3), np.bool_(True))},
            {"base_lrs": [0.1], "last": (3, True)},
        ),
        (Counter({np.int64(5): np.int64(1)}), Counter({5: 1})),
    ],
    ids=["number", "nested", "keys"],
)
def test_numbers_of_numpy_are_kept_as_the_same_numbers_of_python(made: Any, read: Any, tmp_path: Path) -> None:
    checkpoint = {"lr_schedulers": [made], "state_dict": nn.Linear(1, 1).state_dict(), "global_step": 1}
    VerifiedCheckpointIO().save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    [kept] = load_checkpoint_file(tmp_path / "last.ckpt")["lr_schedulers"]
    assert kept == read
    assert repr(kept) == repr(read)
    assert checkpoint["lr_schedulers"] == [made]


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "ran").touch, ())

    torch.save({"state_dict": Code()}, tmp_path / "evil.ckpt")
    with pytest.raises(MLScaleError, match="more than tensors"):
        load_checkpoint_file(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


class Template(pl.LightningModule):
    """What many projects have: every argument among the hyper-parameters, modules and factories too."""

    def __init__(self, net: nn.Module, optimizer: Any, rates: Any, lr: float) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning says that `net` is saved twice
            self.save_hyperparameters()
        self.net = net

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.net(batch["x"]).square().mean()  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        return self.hparams["optimizer"](self.parameters())


def test_hyper_parameters_that_are_no_plain_values_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = OmegaConf.create({"first": 0.1, "others": [1, 2]})
    task = Template(nn.Linear(3, 2), partial(torch.optim.SGD, lr=0.1), rates, 0.5)
    run = checkpointing(tmp_path, callbacks=[ModelCheckpoint(tmp_path / "kept", filename="best")])
    run.fit(task, Loader(batches(3)))
    assert "left out of checkpoints: net, optimizer\n" in capsys.readouterr().err
    kept = load_checkpoint_file(tmp_path / "kept/best.ckpt")
    assert kept["hyper_parameters"] == {"rates": {"first": 0.1, "others": [1, 2]}, "lr": 0.5}
    assert task.hparams["optimizer"] is not None  # the module's own are as they were


@pytest.mark.parametrize(
    "arguments", [{"filename": "{epoch}"}, {"filename": "best"}, {"filename": "{epoch}", "save_last": True}]
)
def test_without_room_the_training_goes_on_and_the_old_one_stays(
    tmp_path: Path, arguments: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    io = VerifiedCheckpointIO()
    callback = model_checkpoint(tmp_path, **arguments)
    with contextlib.ExitStack() as limit:

        def fill(run: pl.Trainer, module: pl.LightningModule, index: int) -> None:
            if run.current_epoch == 1 and index == 0:
                limit.enter_context(largest_file(1000))

        full = At(fill)
        run = checkpointing(tmp_path, io, callbacks=[full, callback], max_epochs=3)
        fit(run, classifier(), batches(4))
    assert run.global_step == 12
    saves = 4 if "save_last" in arguments else 2
    assert len(io.failed) == saves
    reported = capsys.readouterr().err
    line = r"warning   disk full: .* was not saved at step \d+: File too large \([\d,]+ bytes free\)"
    assert len(re.findall(line, reported)) == saves
    assert io.failed[0].step == 8
    left = sorted((tmp_path / "kept").iterdir())
    assert {record(path).step for path in left} == {4}
    assert len(left) == saves // 2
    assert not list(tmp_path.rglob(".*"))


def test_another_error_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file, no folder")
    io = VerifiedCheckpointIO()
    with pytest.raises(MLScaleError, match="can't write the checkpoint") as caught:
        io.save_checkpoint({"state_dict": {}}, tmp_path / "kept/best.ckpt")
    assert caught.value.exit == Exit.ENVIRONMENT
    assert not io.failed


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    partial_file, io = tmp_path / "kept/.aside-best.ckpt-0a1b2c3d", VerifiedCheckpointIO()
    partial_file.write_bytes(b"half")
    io.save_checkpoint({"state_dict": {}}, tmp_path / "kept/best.ckpt")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["best.ckpt"]
    # Later there may be one of another thread, which is not finished yet.
    partial_file.write_bytes(b"half")
    io.save_checkpoint({"state_dict": {}}, tmp_path / "kept/best.ckpt")
    assert partial_file.exists()


def test_an_average_of_the_weights_comes_back(tmp_path: Path) -> None:
    def run(epochs: int, **arguments: Any) -> tuple[Any, Any]:
        average, task = EMAWeightAveraging(decay=0.5), classifier()
        keep = ModelCheckpoint(tmp_path / "kept", filename="{epoch}", save_top_k=-1)
        new = checkpointing(tmp_path, callbacks=[average, keep], max_epochs=epochs)
        new.fit(task, Loader(batches(4)), Loader(batches(1)), **arguments)
        return average, task

    run(1)
    content = load_checkpoint_file(tmp_path / "kept/epoch=0.ckpt")
    assert not torch.equal(content["state_dict"]["model.weight"], content["current_model_state"]["model.weight"])
    assert content["averaging_state"]["n_averaged"] == 4
    shutil.rmtree(tmp_path / "kept")
    _, whole = run(2)
    _, resumed = run(2, ckpt_path=str(tmp_path / "kept/epoch=0.ckpt"))
    assert torch.equal(whole.state_dict()["model.weight"], resumed.state_dict()["model.weight"])


def test_the_scaler_of_fp16_comes_back(tmp_path: Path) -> None:
    def run(path: str | None = None) -> MixedPrecision:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        precision = MixedPrecision("16-mixed", "cpu", scaler)
        keep = ModelCheckpoint(tmp_path / "kept", filename="best")
        new = trainer(
            enable_checkpointing=True, plugins=[VerifiedCheckpointIO(), precision], callbacks=[keep],
            max_epochs=2 if path else 1,
        )  # fmt: skip
        new.fit(classifier(), Loader(batches(5)), Loader(batches(1)), ckpt_path=path)
        return precision

    run()
    state = load_checkpoint_file(tmp_path / "kept/best.ckpt")["MixedPrecision"]
    assert state["scale"] == 2.0**11  # grown once
    assert state["_growth_tracker"] == 2
    again = run(str(tmp_path / "kept/best.ckpt"))
    assert again.scaler is not None
    assert again.scaler.get_scale() == 2.0**13  # ten steps: grown three times
