"""The small models for texts and tables."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlscale.errors import MLScaleError
from mlscale.tasks import NGrams, TabularNet, TextCNN


@pytest.mark.parametrize("model", [NGrams(3, orders=(1, 2, 3), buckets=512, width=8), TextCNN(257, 3, width=8)])
def test_padding_changes_nothing(model: nn.Module) -> None:
    model.eval()
    x = torch.randint(1, 257, (2, 12), generator=torch.Generator().manual_seed(0))
    padded = torch.cat((x, torch.zeros(2, 20, dtype=torch.int64)), dim=1)
    assert torch.allclose(model(x), model(padded), atol=1e-5)
    assert model(x).shape == (2, 3)
    assert not torch.allclose(model(x), model(x.flip(1)), atol=1e-5)
    assert model(torch.zeros(1, 12, dtype=torch.int64)).isfinite().all()


def test_ngrams_have_orders() -> None:
    with pytest.raises(MLScaleError, match="order from 1"):
        NGrams(3, orders=())


def test_a_table_begins_linear_and_rows_do_not_mix() -> None:
    torch.manual_seed(0)
    model = TabularNet(5, 2)
    x = torch.randn(6, 5)
    assert torch.equal(model(x), torch.zeros(6, 2))
    nn.init.normal_(model.leave.weight)  # type: ignore[union-attr]
    model.eval()
    assert torch.allclose(model(x)[:3], model(x[:3]), atol=1e-6)
    assert sum(p.numel() for p in TabularNet(5, 2, blocks=0).parameters()) == 12
