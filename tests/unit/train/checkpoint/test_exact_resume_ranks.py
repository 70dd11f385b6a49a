"""Exact resume where there are several ranks, and the paths of a run that was moved; without a launch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from mlscale.train.checkpoint.exact_resume import KEY, ExactResume, _rewrite_paths
from tests.unit.fitting import trainer


class SecondRank(SingleDeviceStrategy):
    """The second of two ranks, alone in its process."""

    is_global_zero = False

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), accelerator=pl.accelerators.CPUAccelerator())
        self.world_size, self.global_rank = 2, 1


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the first rank gives when objects are gathered: the entries of this list in turn."""
    of_first: list[Any] = []

    def all_gather_object(objects: list[Any], own: object) -> None:
        objects[:] = [of_first.pop(0), own]

    monkeypatch.setattr(dist, "all_gather_object", all_gather_object)
    monkeypatch.setattr(dist, "broadcast_object_list", lambda objects: objects.__setitem__(0, {}))
    return of_first


def build_trainer(*callbacks: pl.Callback) -> pl.Trainer:
    return trainer(strategy=SecondRank(), accelerator="auto", callbacks=[*callbacks], enable_checkpointing=True)


def monitor(folder: Path | None = None, **values: object) -> ModelCheckpoint:
    keeper = ModelCheckpoint(folder, monitor="loss")
    for name, value in values.items():
        setattr(keeper, name, value)
    return keeper


def test_each_rank_saves_its_buffers_and_what_its_callbacks_have_seen(tmp_path: Path, gathered: list[Any]) -> None:
    keeper = monitor(tmp_path, best_model_score=1.0, best_k_models={"a": 1.0}, kth_value=2.0, current_score=3.0)
    checkpoint: dict[str, Any] = {}
    gathered.append("of the first rank")
    ExactResume(0).on_save_checkpoint(build_trainer(keeper), Module(), checkpoint)
    first, second = checkpoint[KEY]["ranks"]
    assert first == "of the first rank"
    assert second["best"] == {
        keeper.state_key: {"best_model_score": 1.0, "best_k_models": {"a": 1.0}, "kth_value": 2.0, "current_score": 3.0}
    }
    assert sorted(second["buffers"]) == ["norm.num_batches_tracked", "norm.running_mean", "norm.running_var"]
    assert second["loaders"] == []


def test_a_checkpoint_at_the_end_of_an_epoch_counts_it_as_ended(gathered: list[Any]) -> None:
    progress = {"current": {"completed": 1}, "total": {"completed": 7}}
    checkpoint: dict[str, Any] = {"epoch": 1, "loops": {"fit_loop": {"epoch_progress": progress}}}
    fitting = build_trainer()
    fitting.fit_loop._at_epoch_boundary = True  # type: ignore[attr-defined]
    gathered.append(None)
    ExactResume(0).on_save_checkpoint(fitting, Module(), checkpoint)
    assert (checkpoint["epoch"], progress["total"]["completed"]) == (2, 8)


@pytest.fixture
def saved(gathered: list[Any]) -> dict[str, Any]:
    """A checkpoint of two ranks."""
    checkpoint: dict[str, Any] = {"global_step": 7, "callbacks": {}}
    gathered.append(None)
    module, exact, keeper = Module(), ExactResume(0), monitor(best_model_score=2.0, current_score=4.0)
    module.norm.running_mean.fill_(5)  # type: ignore[union-attr]
    exact.on_save_checkpoint(build_trainer(keeper), module, checkpoint)
    checkpoint[KEY]["ranks"][0] = {**checkpoint[KEY]["ranks"][1], "buffers": {}, "best": {}}
    return checkpoint


def test_each_rank_gets_its_own_back(saved: dict[str, Any], gathered: list[Any]) -> None:
    module, exact, keeper = Module(), ExactResume(0), monitor(best_model_score=9.0, current_score=9.0)
    fitting = build_trainer(keeper)
    saved[KEY]["ranks"][1]["buffers"]["removed.since"] = torch.ones(1)
    gathered.append([])
    exact.on_load_checkpoint(fitting, module, saved)
    assert (exact.resumed_step, exact.same_layout, exact.inexact) == (7, True, [])
    before = torch.get_rng_state()
    torch.rand(3)
    exact.on_train_start(fitting, module)
    assert [keeper.best_model_score, keeper.current_score] == [2.0, 4.0]
    assert module.norm.running_mean.item() == 5  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), saved[KEY]["ranks"][1]["generators"]["torch"])
    assert not torch.equal(before, torch.rand(3))


def test_the_first_rank_has_its_callbacks_from_lightning(saved: dict[str, Any], gathered: list[Any]) -> None:
    module, exact, keeper = Module(), ExactResume(0), monitor()
    fitting = build_trainer(keeper)
    gathered.append([])
    exact.on_load_checkpoint(fitting, module, saved)
    fitting.strategy.is_global_zero = True  # type: ignore[misc]
    keeper.best_model_score = torch.tensor(8.0)
    exact.on_train_start(fitting, module)
    assert keeper.best_model_score == 8


def test_a_change_on_any_rank_is_a_change_on_all(
    saved: dict[str, Any], gathered: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    saved[KEY]["ranks"][1]["arithmetic"]["threads"] = 99
    own = f"threads 99 before, {torch.get_num_threads()} now"
    exact, fitting, module = ExactResume(0), build_trainer(), Module()
    gathered.append(["torch 1 before, 2 now", own])
    exact.on_load_checkpoint(fitting, module, saved)
    assert exact.inexact == ["torch 1 before, 2 now", own]
    exact.on_fit_start(fitting, module)
    assert capsys.readouterr().err == ""  # the first rank prints it


def test_no_rank_of_another_layout_gets_a_state(saved: dict[str, Any]) -> None:
    exact, fitting, module = ExactResume(0), build_trainer(), Module()
    saved[KEY]["ranks"].pop()
    exact.on_load_checkpoint(fitting, module, saved)
    assert (exact.same_layout, exact.inexact) == (False, ["processes 1 before, 2 now"])
    state = torch.get_rng_state()
    exact.on_train_start(fitting, module)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def moved(tmp_path: Path) -> Callable[..., tuple[ModelCheckpoint, dict[str, Any]]]:
    """Makes a callback of the folder `new` with the files of some names, and the state that it had in `old`."""

    def move(*files: str, **more: Any) -> tuple[ModelCheckpoint, dict[str, Any]]:
        (tmp_path / "new").mkdir()
        for name in files:
            torch.save({}, tmp_path / "new" / name)
        old = f"{tmp_path}/old"
        state = {
            "dirpath": old, "best_k_models": {f"{old}/a.ckpt": 1.0, f"{old}/b.ckpt": 2.0}, "kth_value": 2.0,
            "best_model_path": f"{old}/a.ckpt", "kth_best_model_path": f"{old}/b.ckpt", "last_model_path": "",
            "monitor": f"{old}/a.ckpt", **more,
        }  # fmt: skip
        return monitor(tmp_path / "new"), state

    return move


def test_the_paths_of_a_run_that_was_moved_are_its_new_ones(tmp_path: Path, moved: Any) -> None:
    keeper, state = moved("a.ckpt", "b.ckpt", kth_best_model_path="/else/b.ckpt")
    rank = {"best_k_models": {f"{tmp_path}/old/a.ckpt": 3.0}, "kth_value": 1.0}
    _rewrite_paths(keeper, state, [None, {}, rank])
    new = f"{tmp_path}/new"
    assert state == {
        "dirpath": new, "best_k_models": {f"{new}/a.ckpt": 1.0, f"{new}/b.ckpt": 2.0}, "kth_value": 2.0,
        "best_model_path": f"{new}/a.ckpt", "kth_best_model_path": "/else/b.ckpt", "last_model_path": "",
        "monitor": f"{tmp_path}/old/a.ckpt",
    }  # fmt: skip
    assert rank == {"best_k_models": {f"{new}/a.ckpt": 3.0}, "kth_value": 1.0}


@pytest.mark.parametrize("more", [{"dirpath": None}, {"dirpath": ""}, {"dirpath": "NEW"}, {}])
def test_nothing_is_rewritten_where_the_files_did_not_come_along(tmp_path: Path, moved: Any, more: Any) -> None:
    more = {name: str(tmp_path / "new") if value == "NEW" else value for name, value in more.items()}
    keeper, state = moved("a.ckpt", *(["b.ckpt"] if more else []), **more)
    before = dict(state)
    _rewrite_paths(keeper, state, [])
    assert state == before


@pytest.mark.parametrize("state", [None, {}, {"best_k_models": {}}])
def test_a_callback_without_a_state_has_no_paths(tmp_path: Path, state: Any) -> None:
    _rewrite_paths(monitor(tmp_path), state, [])
    assert state in (None, {}, {"best_k_models": {}})


def test_a_callback_without_a_folder_keeps_its_paths(moved: Any) -> None:
    _, state = moved("a.ckpt", "b.ckpt")
    before = dict(state)
    _rewrite_paths(monitor(), state, [])
    assert state == before


def test_the_paths_of_each_callback_are_rewritten_on_resume(tmp_path: Path, moved: Any, saved: dict[str, Any]) -> None:
    keeper, state = moved("a.ckpt", "b.ckpt", current_score=6.0)
    saved["callbacks"] = {keeper.state_key: state}
    rank = saved[KEY]["ranks"][0]
    rank["best"] = {keeper.state_key: {"best_k_models": {f"{tmp_path}/old/a.ckpt": 3.0}}}
    saved[KEY]["ranks"].pop()
    ExactResume(0).on_load_checkpoint(build_trainer(keeper), Module(), saved)
    assert state["best_model_path"] == f"{tmp_path}/new/a.ckpt"
    assert rank["best"][keeper.state_key]["best_k_models"] == {f"{tmp_path}/new/a.ckpt": 3.0}
    assert keeper.current_score == 6


def test_outside_a_fit_loaders_and_loops_stay_as_they_are() -> None:
    fitting = build_trainer()
    before = dict(vars(fitting.fit_loop)), dict(vars(fitting.fit_loop._data_source))
    ExactResume(0).setup(fitting, Module(), "validate")
    assert (vars(fitting.fit_loop), vars(fitting.fit_loop._data_source)) == before


def test_each_rank_gives_its_own_positions_to_the_loaders(saved: dict[str, Any], gathered: list[Any]) -> None:
    exact, fitting, module = ExactResume(0), build_trainer(), Module()
    for number, rank in enumerate(saved[KEY]["ranks"]):
        rank["loaders"] = [{"position": number}]
    gathered.append([])
    exact.on_load_checkpoint(fitting, module, saved)
    exact.setup(fitting, module, "fit")
    fitting.fit_loop._data_source.instance = [1, 2]
    assert fitting.fit_loop._data_source.dataloader() == [1, 2]
    assert fitting.fit_loop._combined_loader_states_to_load == [{"position": 1}]
