"""AdamW with 8 bits of state: a quarter of the memory, the same course of the loss, and an exact resume."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mlscale.errors import Exit, MLScaleError
from mlscale.train import eight_bit
from mlscale.train.eight_bit import adamw_8bit

installed = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: pip install 'mlscale[bitsandbytes]'"
)


def build_model() -> nn.Module:
    """A model with two large weights, and a bias and a norm that stay at 32 bits."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(64, 256), nn.LayerNorm(256), nn.GELU(), nn.Linear(256, 32))


def take_steps(model: nn.Module, optimizer: Optimizer, count: int, seed: int = 5) -> float:
    """Fit random labels; return the last loss."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(32, 64, generator=generator), torch.randint(32, (32,), generator=generator)
    loss = torch.zeros(())
    for _ in range(count):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        torch.autograd.backward(loss)
        optimizer.step()
    return loss.item()


def count_state_bytes(optimizer: Optimizer) -> int:
    """The bytes of an optimizer's state of tensors; the tables of 8-bit values, which all share, once."""
    tensors: dict[int, Tensor] = {}
    for state in optimizer.state.values():
        tensors |= {value.data_ptr(): value for value in state.values() if isinstance(value, Tensor)}
    return sum(tensor.nbytes for tensor in tensors.values())


@installed
def test_its_state_is_a_quarter() -> None:
    sizes, losses = [], []
    for build in (torch.optim.AdamW, adamw_8bit):
        model = build_model()
        optimizer = build(model.parameters(), lr=1e-3)
        losses.append(take_steps(model, optimizer, 30))
        sizes.append(count_state_bytes(optimizer))
    assert sizes[1] < 0.3 * sizes[0]
    assert losses[0] < 1.0  # of 3.6 at the start
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@installed
def test_small_parameters_keep_32_bits() -> None:
    model = build_model()
    optimizer = adamw_8bit(model.parameters(), min_8bit_size=4096)
    take_steps(model, optimizer, 1)
    dtypes = {parameter.numel(): optimizer.state[parameter]["state1"].dtype for parameter in model.parameters()}
    assert dtypes == {64 * 256: torch.uint8, 256: torch.float32, 256 * 32: torch.uint8, 32: torch.float32}


@installed
def test_it_goes_on_bitwise_after_a_checkpoint(tmp_path: Path) -> None:
    whole = build_model()
    take_steps(whole, optimizer := adamw_8bit(whole.parameters()), 6)
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.ckpt")
    take_steps(whole, optimizer, 6, seed=7)
    # As mlscale reads checkpoints: tensors and plain values alone.
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    resumed = build_model()
    resumed.load_state_dict(saved["model"])
    again = adamw_8bit(resumed.parameters())
    again.load_state_dict(saved["optimizer"])
    take_steps(resumed, again, 6, seed=7)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@installed
def test_groups_have_rates_of_their_own() -> None:
    model = build_model()
    groups = [{"params": [p], "lr": rate} for p, rate in zip(model.parameters(), (0.0, 1e-2) * 3, strict=True)]
    before = [p.detach().clone() for p in model.parameters()]
    take_steps(model, adamw_8bit(groups, weight_decay=0.0), 2)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [False, True] * 3


def test_paging_needs_a_cuda_device() -> None:
    with pytest.raises(MLScaleError, match="can't be paged") as error:
        adamw_8bit(build_model().parameters(), paged=True)
    assert error.value.fix == "optimizer.paged=false"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlscale.export.required_extras.find_spec", lambda name: None)
    with pytest.raises(MLScaleError, match="bitsandbytes is not installed") as error:
        eight_bit.adamw_8bit(build_model().parameters())
    assert error.value.fix == "pip install 'mlscale[bitsandbytes]'"
    assert error.value.exit is Exit.ENVIRONMENT
