"""The training metrics: exact means, at the right steps, in every tracker."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from mlscale.train.callbacks import TrainMetrics
from tests.unit.fitting import At, batches, classifier, fit, trainer


class Recorder(Logger):
    """Keeps what it is given."""

    name = version = "recorder"

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[int | None, dict[str, float]]] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.entries.append((step, metrics))

    def of(self, name: str) -> list[tuple[Any, Any]]:
        return [(step, metrics[name]) for step, metrics in self.entries if name in metrics]


@pytest.mark.parametrize(
    ("limits", "entries"),
    [
        ({"max_epochs": 2}, [4, 9]),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, [2, 5]),
        ({"max_epochs": 1, "max_steps": 3}, [2]),
        ({"max_epochs": 1, "log_every_n_steps": 0}, []),
        ({"max_epochs": 1, "log_every_n_steps": 4}, [3]),
    ],
)
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_an_epoch_shorter_than_the_interval_has_an_entry(limits: dict[str, Any], entries: list[int]) -> None:
    recorder = Recorder()
    run = trainer(logger=recorder, callbacks=[TrainMetrics()], **{"log_every_n_steps": 10, **limits})
    fit(run, classifier(), batches(5))
    assert [step for step, _ in recorder.of("train/loss")] == entries


class Losses(pl.Callback):
    """The loss of every batch, read the expensive way."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(outputs["loss"].item())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loss_is_averaged_over_the_interval_and_the_epoch(accumulate: int) -> None:
    recorder, losses = Recorder(), Losses()
    run = trainer(
        logger=recorder,
        callbacks=[losses, TrainMetrics()],
        accumulate_grad_batches=accumulate,
        log_every_n_steps=2,
        max_epochs=2,
    )
    fit(run, classifier(), batches(5 * accumulate))

    steps = [sum(losses.seen[i : i + accumulate]) for i in range(0, len(losses.seen), accumulate)]
    mean = [(steps[i] + steps[i + 1]) / 2 for i in (0, 2, 5, 7)]
    assert recorder.of("train/loss") == [(i, pytest.approx(m)) for i, m in zip((1, 3, 6, 8), mean, strict=True)]
    epochs = [pytest.approx(sum(part) / 5) for part in (steps[:5], steps[5:])]
    assert recorder.of("train/loss_epoch") == list(zip((4, 9), epochs, strict=True))
    assert run.callback_metrics["train/loss"].item() == epochs[-1]


def test_learning_rate_throughput_and_memory_are_logged() -> None:
    recorder = Recorder()
    fit(trainer(logger=recorder, callbacks=[TrainMetrics()]), classifier(), batches(4))
    assert [rate for _, rate in recorder.of("train/lr")] == [0.1, 0.1]
    assert all(speed > 0 for _, speed in recorder.of("train/samples_per_s"))
    ((_, peak),) = recorder.of("train/peak_memory_gib")
    assert 0.05 < peak < 64


def test_long_intervals_keep_few_losses() -> None:
    metrics, kept = TrainMetrics(), []
    watch = At(lambda run, module, index: kept.append(len(metrics._losses)))
    run = trainer(callbacks=[metrics, watch], log_every_n_steps=600)
    fit(run, classifier(), batches(2) * 300)
    assert max(kept) < 256
    assert torch.isfinite(run.callback_metrics["train/loss_epoch"])


class Manual(pl.LightningModule):
    """Two optimizers, each of which takes a step in every batch."""

    def __init__(self, returns: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.returns, self.seen = returns, list[float]()
        self.one, self.other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        for optimizer, net in zip(self.optimizers(), (self.one, self.other), strict=True):
            loss = torch.nn.functional.cross_entropy(net(batch["x"]), batch["y"])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.seen.append(loss.item())
        return loss if self.returns else None

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(net.parameters(), 0.1) for net in (self.one, self.other)]


def test_manual_optimization_without_a_returned_loss_has_no_train_loss() -> None:
    recorder = Recorder()
    run = trainer(logger=recorder, callbacks=[TrainMetrics()], log_every_n_steps=4, max_epochs=2)
    fit(run, Manual(returns=False), batches(6))
    assert recorder.of("train/samples_per_s")
    assert not recorder.of("train/loss") + recorder.of("train/loss_epoch")
    assert not {"train/loss", "train/loss_epoch"} & set(run.callback_metrics)


def test_the_loss_of_manual_optimization_is_the_mean_of_batches() -> None:
    recorder, module = Recorder(), Manual(returns=True)
    run = trainer(logger=recorder, callbacks=[TrainMetrics()], log_every_n_steps=4)
    fit(run, module, batches(6))
    assert [loss for _, loss in recorder.of("train/loss")] == [pytest.approx(sum(module.seen[:4]) / 4)]
    assert run.callback_metrics["train/loss"].item() == pytest.approx(sum(module.seen) / 6)
    assert run.callback_metrics["train/loss_epoch"].item() == pytest.approx(sum(module.seen) / 6)


def test_a_module_that_logs_its_own_train_loss_keeps_it() -> None:
    class Logs(Manual):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.log("train/loss", 7.0)

    run = trainer(callbacks=[TrainMetrics()])
    fit(run, Logs(returns=False), batches(4))
    assert run.callback_metrics["train/loss"].item() == 7.0
