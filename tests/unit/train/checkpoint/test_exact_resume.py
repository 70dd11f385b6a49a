"""A fit of seconds' fractions, resumed at its boundaries, takes the steps of the uninterrupted one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from mlscale.train.checkpoint import step_boundary
from mlscale.train.checkpoint.exact_resume import KEY, ExactResume
from mlscale.train.checkpoint.random_states import seed_global_generators
from tests.unit.fitting import trainer

SEED, STEPS = 5, 3  # of the run; of an epoch


def draw() -> float:
    """Return a number that depends on each of the three global generators."""
    return float(torch.rand(())) + random.random() + float(np.random.rand())


class Noisy(Dataset[Tensor]):
    """Samples that a random transform moves."""

    def __len__(self) -> int:
        return 2 * STEPS

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([index + draw()])


class Stream(IterableDataset[Tensor]):
    """Samples without a size, in an order that is drawn when an iterator is made."""

    def __iter__(self) -> Iterator[Tensor]:
        order = np.random.permutation(2 * STEPS) + draw()
        return (torch.tensor([value], dtype=torch.float32) for value in order)


class Stateful(DataLoader[Tensor]):
    """A loader that saves its position in the epoch, from which it loads on."""

    def __init__(self) -> None:
        super().__init__(Noisy(), 2)
        self.position = 0
        self.loaded = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a simpler one
        for number in range(self.position % STEPS, STEPS):
            self.position = number + 1
            self.loaded += 1
            yield torch.tensor([[number + draw()]])

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class Walking(Stateful):
    """A loader whose samples depend on how many it has given in all epochs."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a simpler one
        while True:
            self.position += 1
            self.loaded += 1
            yield torch.tensor([[1 / self.position + draw()]])
            if self.position % STEPS == 0:
                return


class Module(pl.LightningModule):
    """A module that writes down what its steps computed with, and draws random numbers itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.log_of_steps: list[tuple[int, int, list[float], float]] = []
        self.hooks: list[str] = []
        self.starts = 0

    def on_train_start(self) -> None:
        self.starts += 1

    def on_train_epoch_start(self) -> None:
        self.hooks.append(f"start {self.current_epoch}")

    def on_train_epoch_end(self) -> None:
        self.hooks.append(f"end {self.current_epoch}")

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        noise = draw()
        self.log_of_steps.append((self.current_epoch, batch_idx, batch.flatten().tolist(), noise))
        loss: Tensor = (self.layer(batch) - noise).square().mean()
        self.log("loss", loss, on_epoch=True, on_step=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Rows(Logger):
    """A tracker that keeps its rows, and in checkpoints how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.loaded: Any = None

    name, version = "rows", ""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *given: Any, **named: Any) -> None: ...

    def state_dict(self) -> dict[str, int]:
        return {"rows": len(self.rows)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.loaded = state["rows"]


class Plain(Rows):
    """A tracker that a checkpoint says nothing of."""

    load_state_dict = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name in ("state_dict", "load_state_dict"):
            raise AttributeError(name)
        return super().__getattribute__(name)


class Save(pl.Callback):
    """Saves at every boundary: `1-step` after the first step, `4-epoch` after the first epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def on_step_boundary(self, trainer: pl.Trainer, module: Any) -> None:
        self._save(trainer, "step")

    def on_epoch_boundary(self, trainer: pl.Trainer, module: Any) -> None:
        self._save(trainer, "epoch")

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        self.count += 1
        trainer.save_checkpoint(self.folder / f"{self.count}-{name}.ckpt")


class RankState(pl.Callback):
    """A callback with a state that belongs to one rank."""

    loaded: Any = None

    def rank_state(self) -> str:
        return "mine"

    def load_rank_states(self, states: list[Any], trainer: pl.Trainer) -> None:
        self.loaded = states


def seed_generators(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def run(
    data: Any, resume: Path | None = None, saves: Path | None = None, **arguments: Any
) -> tuple[Module, ExactResume, pl.Trainer]:
    """Fit in what might be a new process: its generators are elsewhere."""
    seed_generators(0 if resume is None else 1)
    module, exact = Module(), ExactResume(SEED)
    callbacks = [exact, *([Save(saves)] if saves else []), *arguments.pop("callbacks", [])]
    usual = {"max_epochs": 3, "callbacks": callbacks, "logger": Rows(), "log_every_n_steps": 1, "limit_val_batches": 0}
    usual["enable_checkpointing"] = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    fitting = trainer(**usual | arguments)
    step_boundary.install_boundaries(fitting)
    given = {"datamodule": data} if isinstance(data, pl.LightningDataModule) else {"train_dataloaders": data}
    fitting.fit(module, ckpt_path=resume, weights_only=True, **given)
    return module, exact, fitting


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Edit a checkpoint."""
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)
    return path


LOADERS: dict[str, Callable[[], Any]] = {
    "shuffled": lambda: DataLoader(Noisy(), 2, shuffle=True),
    "without a size": lambda: DataLoader(Stream(), 2),
    "with a position": Stateful,
    "with a position in all epochs": Walking,
}
REPLAYED = {
    ("2-step", "shuffled"): 2, ("2-step", "without a size"): 2, ("3-step", "without a size"): 3,
    ("6-step", "shuffled"): 2, ("6-step", "without a size"): 2,
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("at", ["2-step", "3-step", "4-epoch", "6-step"])
def test_a_resumed_fit_takes_the_steps_of_the_uninterrupted_one(tmp_path: Path, name: str, at: str) -> None:
    whole, fresh, before = run(LOADERS[name](), saves=tmp_path)
    again, exact, after = run(loader := LOADERS[name](), resume=tmp_path / f"{at}.ckpt")
    assert len(whole.log_of_steps) == 3 * STEPS
    assert exact.resumed_step == 3 * STEPS - len(again.log_of_steps)
    assert again.log_of_steps == whole.log_of_steps[exact.resumed_step :]
    assert again.hooks == whole.hooks[-len(again.hooks) :]
    (old,), (new,) = before.loggers, after.loggers
    assert isinstance(old, Rows)
    assert isinstance(new, Rows)
    assert new.rows == old.rows[new.loaded :]
    assert after.callback_metrics == before.callback_metrics
    assert (after.global_step, after.current_epoch) == (before.global_step, before.current_epoch)
    assert all(map(torch.equal, whole.parameters(), again.parameters()))
    assert (exact.same_layout, exact.inexact, exact.other_batches) == (True, [], False)
    assert exact.replayed == REPLAYED.get((at, name), 0)
    assert (fresh.resumed_step, fresh.same_layout, fresh.inexact, fresh.replayed) == (None, True, [], 0)
    if isinstance(loader, Stateful):
        assert loader.loaded == len(again.log_of_steps)


class Drifting(Noisy):
    """Samples that a generator of the data set's own moves."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(3)

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([index + self.generator.random()], dtype=torch.float32)


FORGETFUL: dict[str, Callable[[], Any]] = {
    "sampler": lambda: DataLoader(
        Noisy(), 2, sampler=RandomSampler(range(2 * STEPS), generator=torch.Generator().manual_seed(3))
    ),
    "data set": lambda: DataLoader(Drifting(), 2),
}


@pytest.mark.parametrize("name", FORGETFUL)
@pytest.mark.parametrize("at", ["2-step", "3-step", "4-epoch", "6-step"])
def test_other_batches_are_named_and_the_same_ones_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, at: str
) -> None:
    whole, *_ = run(FORGETFUL[name](), saves=tmp_path)
    again, exact, _ = run(FORGETFUL[name](), resume=tmp_path / f"{at}.ckpt")
    is_same = again.log_of_steps == whole.log_of_steps[exact.resumed_step :]
    assert is_same == (at == "2-step"), "in the first epoch the replay brings the generator where it was"
    assert exact.other_batches == (not is_same)
    assert ("they are not those before the interruption" in capsys.readouterr().err) == (not is_same)


def test_batches_that_a_checkpoint_does_not_record_are_not_called_the_same(tmp_path: Path) -> None:
    run(LOADERS["shuffled"](), saves=tmp_path)
    path = change(tmp_path / "6-step.ckpt", lambda content: content[KEY]["ranks"][0].update(batches=[]))
    _, exact, _ = run(LOADERS["shuffled"](), resume=path)
    assert (exact.inexact, exact.other_batches) == (["the checkpoint does not record its batches"], False)


def test_a_run_that_was_saved_after_its_last_step_ends_its_epoch(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"max_epochs": -1, "max_steps": STEPS + 1}
    whole, _, before = run(LOADERS["shuffled"](), saves=tmp_path, **arguments)
    assert whole.hooks == ["start 0", "end 0", "start 1", "end 1"]
    again, _, after = run(LOADERS["shuffled"](), tmp_path / f"{STEPS + 2}-step.ckpt", **arguments)
    assert (again.log_of_steps, again.hooks, again.starts) == ([], ["end 1"], 1)
    assert after.callback_metrics == before.callback_metrics
    assert after.current_epoch == before.current_epoch
    nothing, _, _ = run(LOADERS["shuffled"](), tmp_path / f"{STEPS + 3}-epoch.ckpt", **arguments)
    assert (nothing.log_of_steps, nothing.hooks) == ([], [])


class Drawing:
    """A loader that draws a random number when an iterator is made."""

    def __init__(self, drawn: list[tuple[str, float]]) -> None:
        self.drawn = drawn

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Tensor]:
        self.drawn.append(("begun", draw()))
        return iter([torch.zeros(1, 1)] * STEPS)


class Data(pl.LightningDataModule):
    """Data whose loader is made and iterated by random numbers."""

    def __init__(self, promises: Any) -> None:
        super().__init__()
        self.promises = promises
        self.drawn: list[tuple[str, float]] = []

    def train_dataloader(self) -> Any:
        self.drawn.append(("made", draw()))
        return Drawing(self.drawn)


def draw_seeded(*seeds: int) -> float:
    seed_global_generators(*seeds)
    return draw()


@pytest.mark.parametrize("promises", [None, SimpleNamespace(resume=False), SimpleNamespace(resume=True)])
def test_the_random_numbers_of_a_loader_are_those_of_the_epoch(promises: Any) -> None:
    data = Data(promises)
    module, *_ = run(data)
    # Lightning makes an iterator once more, to see whether it can.
    assert [name for name, _ in data.drawn] == ["made", "begun", "begun", "begun", "begun"]
    made, tried, _, second, third = (number for _, number in data.drawn)
    expected = [draw_seeded(SEED, *more) for more in [(1,), (0, 2), (1, 2), (2, 2)]]
    seeded = promises is None or not promises.resume
    assert [one == other for one, other in zip([made, tried, second, third], expected, strict=True)] == [seeded] * 4
    for epoch in range(3):  # the batches' are the epoch's always
        assert module.log_of_steps[epoch * STEPS][-1] == draw_seeded(SEED, epoch, 3)


def test_an_iterator_is_made_in_its_epoch_or_anew_with_its_random_numbers(tmp_path: Path) -> None:
    run(Data(None), saves=tmp_path)
    in_first, in_second = Data(None), Data(None)
    run(in_first, tmp_path / "2-step.ckpt", max_epochs=1)
    assert [name for name, _ in in_first.drawn] == ["made", "begun", "begun"]
    run(in_second, tmp_path / "6-step.ckpt", max_epochs=2)
    assert [name for name, _ in in_second.drawn] == ["made", "begun", "begun", "begun"]
    assert in_second.drawn[-1][1] == draw_seeded(SEED, 1, 2)


def test_a_loader_that_keeps_its_place_is_left_to_itself(tmp_path: Path) -> None:
    kept = SimpleNamespace(resume=True)
    whole, *_ = run(Data(kept), saves=tmp_path)
    data = Data(kept)
    again, exact, _ = run(data, tmp_path / "6-step.ckpt")
    assert exact.replayed == 0
    assert [name for name, _ in data.drawn][:2] == ["made", "begun"]
    assert again.log_of_steps[0] == whole.log_of_steps[5]


def test_without_a_checkpoint_of_mlscale_the_counters_alone_are_taken(tmp_path: Path) -> None:
    run(LOADERS["shuffled"](), saves=tmp_path)
    path = change(tmp_path / "6-step.ckpt", lambda content: content.pop(KEY))
    again, exact, fitting = run(LOADERS["shuffled"](), path, num_sanity_val_steps=2)
    assert (exact.resumed_step, exact.same_layout, len(again.log_of_steps)) == (5, False, 4)
    assert exact.inexact == ["the checkpoint is not of mlscale: it holds no random generators"]
    assert fitting.num_sanity_val_steps == 0


def test_what_else_has_changed_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(LOADERS["shuffled"](), saves=tmp_path)
    path = tmp_path / "4-epoch.ckpt"
    _, exact, _ = run(LOADERS["shuffled"](), path)
    assert "not the same bits" not in capsys.readouterr().err
    change(path, lambda content: content[KEY]["ranks"][0]["arithmetic"].update(threads=99))
    _, exact, _ = run(LOADERS["shuffled"](), path)
    line = f"threads 99 before, {torch.get_num_threads()} now"
    assert exact.inexact == [line]
    assert f"machine   {line}: not the same bits\n" in capsys.readouterr().err


def test_on_another_number_of_ranks_their_own_states_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(LOADERS["shuffled"](), saves=tmp_path, callbacks=[RankState()])
    path = tmp_path / "6-step.ckpt"
    mine, other = RankState(), RankState()
    _, exact, _ = run(LOADERS["shuffled"](), path, callbacks=[mine])
    assert mine.loaded == ["mine"]
    change(path, lambda content: content[KEY]["ranks"].append({"callbacks": {"RankState": "of another"}}))
    _, exact, _ = run(LOADERS["shuffled"](), path, callbacks=[other])
    assert other.loaded == ["mine", "of another"]
    assert (exact.same_layout, exact.inexact) == (False, ["processes 2 before, 1 now"])
    assert "machine" not in capsys.readouterr().err


def test_the_end_of_an_epoch_in_lightnings_hook_is_the_next_ones_start(tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)
    whole, *_ = run(LOADERS["shuffled"](), callbacks=[keeper])
    path = change(tmp_path / "epoch=0.ckpt", lambda content: content["callbacks"].clear())
    again, *_ = run(LOADERS["shuffled"](), path)
    assert again.log_of_steps == whole.log_of_steps[STEPS:]
    assert again.hooks == whole.hooks[2:]


def test_each_stateful_tracker_gets_its_own_state(tmp_path: Path) -> None:
    run(LOADERS["shuffled"](), saves=tmp_path, logger=[Plain(), Rows()])
    path = change(tmp_path / "2-step.ckpt", lambda content: content[KEY]["loggers"]["0"].update(rows=7))
    assert torch.load(path, weights_only=True)[KEY]["format"] == 1
    loggers = [Plain(), Rows(), Rows()]
    run(LOADERS["shuffled"](), path, logger=loggers)
    assert [log.loaded for log in loggers] == [None, 7, None]


def test_a_best_checkpoint_that_is_gone_is_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def build() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "best", monitor="loss_step", every_n_train_steps=1)

    run(LOADERS["shuffled"](), saves=tmp_path, callbacks=[build()])
    shutil.rmtree(tmp_path / "best")
    keeper = build()
    run(LOADERS["shuffled"](), tmp_path / "2-step.ckpt", callbacks=[keeper])
    assert "is gone or corrupt: the best of the rest of the run is kept" in capsys.readouterr().err
    assert Path(keeper.best_model_path).exists()


def test_the_score_that_a_checkpoint_callback_saw_last_is_back(tmp_path: Path) -> None:
    def build() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "best", monitor="loss_step", every_n_train_steps=1)

    run(LOADERS["shuffled"](), saves=tmp_path, callbacks=[build()])
    shutil.rmtree(tmp_path / "best")  # Lightning warns of a folder that is not empty
    keeper = build()
    arguments: dict[str, Any] = {"callbacks": [keeper], "max_steps": 2, "max_epochs": -1}
    run(LOADERS["shuffled"](), tmp_path / "2-step.ckpt", **arguments)
    state = torch.load(tmp_path / "2-step.ckpt", weights_only=True)["callbacks"][keeper.state_key]
    assert keeper.current_score is not None
    assert keeper.current_score == state["current_score"]
