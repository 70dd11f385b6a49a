"""What each of two ranks does in the tests of this folder: in a module, for the fork server imports it by name."""

import contextlib
import io
import json
import os
import resource
import signal
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from mlscale.cli import main
from mlscale.errors import MLScaleError
from mlscale.tasks import Multilabel
from mlscale.train import graceful_stop as signals
from mlscale.train import strategies
from mlscale.train.callbacks import EMA, Checkpoints, NonFinite, TrainMetrics
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.trainer_patches import apply_trainer_patches
from tests.unit.fitting import SGD, At, Loader, batches, classifier, fit, trainer


def _of_rank(data: list[dict[str, Any]], rank: int) -> list[dict[str, Any]]:
    return data[rank::2]


def _ddp(**arguments: Any) -> pl.Trainer:
    run = trainer(devices=2, strategy=strategies.ddp(world_size=2, timeout=60), **arguments)
    apply_trainer_patches(run)
    return run


def metrics(_: str) -> dict[str, float]:
    """Train and validate on half of the data each; one rank's last batch is padding."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    run = _ddp(callbacks=[TrainMetrics()])
    val = _of_rank(batches(3, seed=1), rank)
    if rank == 1:
        val.append({"x": torch.zeros(1, 3), "y": torch.zeros(1, dtype=torch.int64), "weight": torch.zeros(1)})
    fit(run, classifier(), _of_rank(batches(8), rank), val)
    return {name: value.item() for name, value in run.callback_metrics.items()}


def several(size: int, seed: int, weight: float = 1.0) -> dict[str, Any]:
    """A batch of samples with three labels of 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 3, generator=generator)
    y = (x + torch.randn(size, 3, generator=generator) > 0).float()
    return {"x": x, "y": y, "weight": torch.full((size,), weight)}


def multilabel() -> Multilabel:
    torch.manual_seed(0)
    return Multilabel(3, model=torch.nn.Linear(3, 3), optimizer=SGD)


def torchmetrics(_: str) -> dict[str, float]:
    """Validate where one rank has nothing but padding, and the other batches of two sizes."""
    torch.set_num_threads(1)
    run = _ddp()
    mine = [several(20, 0), several(7, 1)] if os.environ["RANK"] == "0" else [several(1, 2, 0.0)] * 2
    run.validate(multilabel(), Loader(mine), verbose=False)
    return {name: value.item() for name, value in run.callback_metrics.items()}


def stop(path: str) -> str:
    """Rank 1 alone gets the signal."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])

    def kill(run: Any, module: Any, index: int) -> None:
        if rank == 1 and index == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with signals.handle_stop_signals():
        run = _ddp(callbacks=[At(kill), signals.StopOnSignal(path)], enable_checkpointing=True)
        try:
            fit(run, classifier(), _of_rank(batches(2), rank) * 2000)
        except MLScaleError as error:
            return str(error)
    return "not stopped"


def diverge(path: str) -> str:
    """Rank 1 alone sees the bad batch, and looks at its losses late, as on an accelerator; rank 0 must not save."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    checkpoint = pl.callbacks.ModelCheckpoint(
        dirpath=path, filename="last", every_n_train_steps=1, enable_version_counter=False
    )
    data = _of_rank(batches(8), rank)
    if rank == 1:
        data[2]["x"][0] = float("inf")
    run = _ddp(callbacks=[_Late(), checkpoint], enable_checkpointing=True)
    try:
        fit(run, classifier(), data)
    except MLScaleError as error:
        return str(error)
    return "not noticed"


class _Late(NonFinite):
    def on_train_batch_end(self, *_: Any) -> None:
        """Leave it to the look before a checkpoint is saved."""


class _Full(pl.Callback):
    """The first rank, which writes, has no room in two of the epochs; the metric gets better at each."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            largest = 1000 if trainer.current_epoch in (1, 2) else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("score", float(trainer.current_epoch), sync_dist=True)


def keep(path: str) -> dict[str, Any]:
    """Checkpoints by every policy, some of which find no room."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    callback = Checkpoints(path, monitor="score", mode="max", every_n_steps=3, every_n_minutes=0.0005, keep=2)
    slow = At(lambda *_: time.sleep(0.01))
    io = VerifiedCheckpointIO()
    run = _ddp(callbacks=[_Full(), slow, callback], enable_checkpointing=True, max_epochs=4, plugins=[io])
    known = []
    run.callbacks.append(At(lambda run, module, index: known.append(str(callback.best_model_score))))  # type: ignore[attr-defined]  # set by a connector
    fit(run, classifier(), _of_rank(batches(16), rank))
    return {"best": callback.best_model_path, "known": known, "failed": len(io.failed)}


class _Tracker(Logger):
    """Notes the step at which it is notified of a checkpoint, and whether that exists."""

    name, version = "tracker", "0"

    def __init__(self) -> None:
        super().__init__()
        self.trainer: Any = None
        self.seen: list[tuple[int, bool]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self.seen.append((self.trainer.global_step, os.path.exists(checkpoint_callback.best_model_path)))


def notify(path: str) -> list[tuple[int, bool]]:
    """When a tracker is notified of checkpoints after the steps 6 and 12, the last."""
    torch.set_num_threads(1)
    tracker = _Tracker()
    keeper = pl.callbacks.ModelCheckpoint(path, "{step}", every_n_train_steps=6)
    slow = At(lambda *_: time.sleep(0.05))
    io = VerifiedCheckpointIO()
    run = _ddp(callbacks=[slow, keeper], enable_checkpointing=True, plugins=[io], logger=tracker)
    tracker.trainer = run
    fit(run, classifier(), _of_rank(batches(24), int(os.environ["RANK"])))
    return tracker.seen


def save_alike(path: str) -> list[int]:
    """The last periodic checkpoint after each step, where the ranks' steps and saves take times of their own."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    callback = Checkpoints(path, every_n_minutes=0.004, keep=-1, save_top_k=0, save_last=False)
    seen: list[int] = []

    def wait(*_: object) -> None:
        seen.append(callback._saved_at)
        time.sleep(0.01 * (1 + rank))

    run = _ddp(
        callbacks=[At(wait), callback], enable_checkpointing=True, max_epochs=10, plugins=[VerifiedCheckpointIO()]
    )
    fit(run, classifier(), _of_rank(batches(32), rank))
    return seen


def averaged(_: str) -> dict[str, Any]:
    """Each rank's average of the weights, and what it validated with."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    average = EMA(warmup="polyak", every=1)
    seen: list[torch.Tensor] = []
    watch = At(lambda run, module, index: seen.append(next(module.parameters()).detach().clone()))
    task = classifier()
    fit(_ddp(callbacks=[average, watch]), task, _of_rank(batches(8), rank), _of_rank(batches(2, seed=1), rank))
    return {"average": next(task.parameters()).detach(), "mean": torch.stack(seen).mean(0)}


def join(argument: str) -> dict[str, Any]:
    """Run the command as one of two ranks: a list in JSON of the working folder and the words."""
    folder, *words = json.loads(argument)
    os.chdir(folder)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}
