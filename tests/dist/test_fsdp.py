"""FSDP on two ranks, by gloo: it computes what DDP computes, and its checkpoints are those of one process."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist import sharded
from tests.dist.test_two_ranks import launch


@pytest.mark.parametrize(
    "words",
    [
        "",
        "precision=bf16-mixed recompute",
        "accumulate_grad_batches=2 ema metrics grad_norm",
        *(
            pytest.param(more, marks=pytest.mark.slow)
            for more in (
                "precision=bf16-mixed freeze metrics nonfinite",
                "wrap_min_params=10 muon",
                "wrap=[Block] reshard_after_forward=false",
            )
        ),
    ],
)
def test_it_computes_what_ddp_computes(words: str) -> None:
    """Clipped, with dropout, BatchNorm and tensors that two ranks can't share evenly."""
    own = ("wrap", "reshard")
    shared = " ".join(word for word in words.split(" ") if not word.startswith(own))
    unused = " find_unused_parameters=true" if "freeze" in words else ""
    (ddp, *_), (fsdp, *_) = launch(sharded.curve, f"ddp {shared}{unused}"), launch(sharded.curve, f"fsdp {words}")
    assert len(fsdp["losses"]) == 16
    assert fsdp["losses"] == pytest.approx(ddp["losses"], rel=1e-5)
    ddp["metrics"].pop("train/peak_memory_gib", None)
    fsdp["metrics"].pop("train/peak_memory_gib", None)
    assert fsdp["metrics"] == pytest.approx(ddp["metrics"], rel=1e-5)
    assert list(fsdp["weights"]) == list(ddp["weights"])
    for name, value in ddp["weights"].items():
        torch.testing.assert_close(fsdp["weights"][name], value, rtol=1e-5, atol=1e-5)


def test_accumulated_passes_send_no_gradients() -> None:
    (each, _), (fourth, _) = launch(sharded.count_collectives, "1"), launch(sharded.count_collectives, "4")
    groups = 3  # two blocks and the rest
    assert each["reduce_scatter_single"] == 8 * groups
    assert fourth["reduce_scatter_single"] == 2 * groups
    # Weights are gathered for every pass: the blocks' twice, and those of the validation of one batch.
    assert each["all_gather_single"] == fourth["all_gather_single"] == 8 * (2 * groups - 1) + groups


def test_what_it_can_not_train_is_refused() -> None:
    assert launch(sharded.refused, "scalar")[0].startswith("strategy=fsdp can't shard the parameter model.scale")
    assert launch(sharded.refused, "manual")[0].startswith("strategy=fsdp can't train Classification, which optimizes")


@pytest.mark.slow
def test_weights_that_others_use_are_named() -> None:
    text = launch(sharded.refused, "others")[0]
    assert "it uses weights outside of their module's forward pass" in text


def test_each_rank_holds_half() -> None:
    whole, (first, second) = launch(sharded.memory, "ddp")[0], launch(sharded.memory, "fsdp")
    assert set(first) == {"parameters", "gradients", "optimizer"}
    for purpose, count in whole.items():
        assert first[purpose] == pytest.approx(count / 2, rel=0.05)
        assert second[purpose] == pytest.approx(count / 2, rel=0.05)


@pytest.mark.slow
def test_settings_of_ddp_compute_the_same() -> None:
    plain, static, short = (
        launch(sharded.curve, f"ddp {words}")[0]["losses"]
        for words in ("", "static_graph=true recompute", "gradient_reduction=bf16")
    )
    assert static == plain
    assert short != plain
    assert short == pytest.approx(plain, rel=2e-2)  # rounded to 8 bits


@pytest.mark.slow
def test_groups_that_each_hold_a_model() -> None:
    """Hybrid sharding of four ranks: within pairs, and the same gradients as those of four with DDP."""
    for where in launch(sharded.list_placements, "", ranks=4):
        assert where == ["(2, 2) (Replicate(), Shard(dim=0))"]
    (ddp, *_), (fsdp, *_) = (launch(sharded.curve, words, ranks=4) for words in ("ddp", "fsdp replicate=2"))
    assert fsdp["losses"] == pytest.approx(ddp["losses"], rel=1e-5)


@pytest.mark.slow
def test_tied_weights_stay_tied() -> None:
    ddp, fsdp = launch(sharded.tied, "ddp")[0], launch(sharded.tied, "fsdp")[0]
    assert fsdp["losses"] == pytest.approx(ddp["losses"], rel=1e-5)
    assert fsdp["same"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fsdp", "ddp"),
        *(pytest.param(before, "fsdp", marks=pytest.mark.slow) for before in ("fsdp", "ddp")),
    ],
)
def test_checkpoints_have_one_form(before: str, after: str, tmp_path: Path) -> None:
    """What FSDP saved loads under DDP and the other way, and saved again it is the same to the last bit."""
    path, again = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    launch(sharded.save, f"{before} {path}")
    reads = launch(sharded.reload, f"{after} {path} {again}")
    assert reads == ([1, 0] if after == "fsdp" else [1, 1])
    first, second = (torch.load(each, weights_only=True) for each in (path, again))
    assert list(first["state_dict"]) == list(sharded.task().state_dict())
    for part in ("state_dict", "optimizer_states"):
        assert_equal(first[part], second[part], part)


def assert_equal(first: Any, second: Any, where: str) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for index, value in enumerate(first):
            assert_equal(value, second[index], f"{where}.{index}")
    else:
        assert first == second, where
