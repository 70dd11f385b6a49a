"""FSDP on two ranks, by gloo: it computes what DDP computes, and its checkpoints are those of one process."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist import sharded
from tests.dist.test_two_ranks import launch


def both(words: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """What the first rank has after a training with DDP, and with FSDP."""
    (ddp, *_), (fsdp, *_) = launch(sharded.curve, f"ddp {words}"), launch(sharded.curve, f"fsdp {words}")
    return ddp, fsdp


@pytest.mark.parametrize("words", ["", "accumulate=2", "precision=bf16-mixed"])
def test_it_computes_what_ddp_computes(words: str) -> None:
    """Clipped, with dropout, BatchNorm and tensors that two ranks can't share evenly."""
    ddp, fsdp = both(words)
    assert len(fsdp["losses"]) == 16
    rounding = 2e-2 if "bf16" in words else 1e-5
    assert fsdp["losses"] == pytest.approx(ddp["losses"], rel=rounding)
    assert fsdp["metrics"] == pytest.approx(ddp["metrics"], rel=rounding)
    assert list(fsdp["weights"]) == list(ddp["weights"])
    for name, value in ddp["weights"].items():
        torch.testing.assert_close(fsdp["weights"][name], value, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("after", ["fsdp", "ddp"])
@pytest.mark.parametrize("before", ["fsdp", "ddp"])
def test_checkpoints_have_one_form(before: str, after: str, tmp_path: Path) -> None:
    """What FSDP saved loads under DDP and the other way, and saved again it is the same to the last bit."""
    if before == after == "ddp":
        pytest.skip("no FSDP in it")
    path, again = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    launch(sharded.save, f"{before} {path}")
    launch(sharded.reload, f"{after} {path} {again}")
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
