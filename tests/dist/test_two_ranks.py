"""Two ranks on one machine, by gloo: metrics are exact, and all ranks stop after the same step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files
from tests.contract.commands import environment, mlscale
from tests.dist import ranks
from tests.unit.fitting import Loader, batches, classifier, fit, trainer


def launch(function: Callable[[str], Any], argument: str, ranks: int = 2) -> list[Any]:
    """What each rank returned."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id="two-ranks",
        start_method="forkserver",
        max_restarts=0,
        monitor_interval=0.1,
    )
    results = elastic_launch(config, function)(argument)
    return [results[rank] for rank in range(ranks)]


def test_metrics_are_those_of_one_process_and_equal_on_both_ranks() -> None:
    first, second = launch(ranks.metrics, "")
    for name in ("train/loss", "train/loss_epoch", "val/loss", "val/accuracy"):
        assert first[name] == second[name]

    halves, task, run = batches(8), classifier(), trainer(accumulate_grad_batches=2)
    fit(run, task, halves)  # two batches of four per optimizer step, as the two ranks have
    (alone,) = trainer().validate(task, Loader(batches(3, seed=1)), verbose=False)
    assert first["val/loss"] == pytest.approx(alone["val/loss"], rel=1e-5)
    assert first["val/accuracy"] == alone["val/accuracy"]


def test_torchmetrics_are_those_of_one_process_where_a_rank_has_no_sample() -> None:
    first, second = launch(ranks.torchmetrics, "")
    assert first == second
    data = [ranks.several(20, 0), ranks.several(7, 1)]
    (alone,) = trainer().validate(ranks.multilabel(), Loader(data), verbose=False)
    assert first == pytest.approx(alone, rel=1e-6)
    assert set(first) == {f"val/{name}" for name in ("loss", "map", "f1_macro", "f1_micro", "exact_match")}


def test_a_signal_to_one_rank_stops_both_after_the_same_step(tmp_path: Path) -> None:
    first, second = launch(ranks.stop, str(tmp_path / "last.ckpt"))
    assert first == second
    assert "stopped by SIGTERM after optimizer step" in first
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] >= 4


def test_no_rank_saves_what_has_diverged_on_another(tmp_path: Path) -> None:
    printed = launch(ranks.diverge, str(tmp_path))
    assert all("not finite after optimizer step 3" in line for line in printed)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


@pytest.mark.slow
def test_both_ranks_know_which_checkpoints_found_no_room(tmp_path: Path) -> None:
    first, second = launch(ranks.keep, str(tmp_path))
    assert first["failed"] > 0
    assert second["failed"] == 0  # it writes nothing
    assert first["known"] == second["known"]
    assert len(set(first["known"])) == 2  # none yet, then that of the first epoch, until the last one ends
    assert first["best"] == second["best"] == str(tmp_path / "best.ckpt")
    found = {each.path.stem: each.record for each in list_checkpoint_files(tmp_path) if each.record}
    assert {verify_checkpoint(each.path).state for each in list_checkpoint_files(tmp_path)} == {"ok"}
    assert (found["best"].step, found["best"].value, found["last"].step) == (32, 3.0, 32)
    assert len([name for name in found if name.startswith("step=")]) == 2


@pytest.mark.slow
def test_trackers_are_notified_before_the_next_save(tmp_path: Path) -> None:
    first, last = launch(ranks.notify, str(tmp_path))[0]
    assert 6 <= first[0] <= 8
    assert last == (12, True)
    assert first[1]


@pytest.mark.slow
def test_both_ranks_save_at_the_steps_that_one_of_them_chooses(tmp_path: Path) -> None:
    first, second = launch(ranks.save_alike, str(tmp_path))
    assert first == second
    assert len(set(first)) >= 3  # none yet, and two saves
    saved = {each.record.step for each in list_checkpoint_files(tmp_path) if each.record}
    assert set(first) - {0} <= saved


def test_the_average_of_the_weights_is_the_same_on_both_ranks() -> None:
    first, second = launch(ranks.averaged, "")
    assert torch.equal(first["average"], second["average"])
    torch.testing.assert_close(first["average"], first["mean"])


@pytest.mark.slow
def test_pixel_by_pixel_without_a_word_of_strides(tmp_path: Path) -> None:
    """In a process of its own: ranks print where the fork server did, which another test may have started."""
    words = ["+recipe=resnet", "model.widths=[4,8]", "precision=bf16", "precision.memory_format=channels_last"]
    short = ["trainer.devices=2", "debug=limit", "trainer.max_epochs=1", "snapshot=false"]
    done = mlscale(tmp_path, *words, *short, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
